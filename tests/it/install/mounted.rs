//! File systems of our own, taken away again at the end of a test.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    dir: TempDir,
    image: Option<PathBuf>,
}

/// Runs a program that must be there and must succeed.
pub(crate) fn run(package: &str, program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be run ({error}); install the Debian package {package}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Mounted {
    /// A tmpfs of `kib` KiB.
    pub(crate) fn tmpfs(kib: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("mnt");
        std::fs::create_dir(&at).unwrap();
        run("mount", "mount", &["-t", "tmpfs", "-o", &format!("size={kib}k,mode=755"), "tmpfs", at.to_str().unwrap()]);
        Self { dir, image: None }
    }

    /// A file system on a loop device.
    pub(crate) fn image(kind: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("mnt");
        std::fs::create_dir(&at).unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
        let path = image.to_str().unwrap();
        match kind {
            "xfs" => run("xfsprogs", "mkfs.xfs", &["-q", path]),
            _ => run("e2fsprogs", "mkfs.ext4", &["-q", "-O", "^has_journal,has_journal", path]),
        }
        let mounted = Self { dir, image: Some(image) };
        mounted.mount();
        mounted
    }

    fn mount(&self) {
        let image = self.image.as_ref().unwrap();
        run("mount", "mount", &["-o", "loop", image.to_str().unwrap(), self.at().to_str().unwrap()]);
    }

    /// Where it is mounted.
    pub(crate) fn at(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Cuts the power: what is not on the disk is lost. Then the machine comes back.
    pub(crate) fn cut_power(&self) {
        run("xfsprogs", "xfs_io", &["-x", "-c", "shutdown", self.at().to_str().unwrap()]);
        umount(&self.at());
        self.mount();
    }
}

fn umount(at: &Path) {
    run("mount", "umount", &[at.to_str().unwrap()]);
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The test may have failed anywhere; nothing more can be done about an error here.
        let _ = Command::new("umount").arg("-l").arg(self.at()).status();
    }
}
