//! A real systemd in a throw-away box.
//!
//! `systemd-nspawn` boots this machine's own root through an overlay in memory. The mounts live in
//! a namespace of their own and are gone with the box; the box is gone with the test, even if that is
//! killed (then only empty control groups `afterhours-box-*` stay, until the next boot of one). The network is private.
//!
//! Debian packages: systemd-container, dbus, util-linux.

use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::process::Command;
use walkdir::WalkDir;

use crate::support::eventually;

/// Mounts and boots. Units that need the network, a console or a long time are masked.
const BOOT: &str = r#"
# A group of control groups of its own, or two boxes would mistake each other's units for their own.
for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do
    if [ -e "$tree/cgroup.procs" ] && [ ! -L "$tree" ]; then
        for old in "$tree"/afterhours-box-*; do
            [ -e "/proc/${old##*-}" ] || find "$old" -depth -type d -exec rmdir {} +
        done
        mkdir "$tree/afterhours-box-$$" && echo $$ > "$tree/afterhours-box-$$/cgroup.procs"
    fi
done 2>/dev/null
set -e
mount -t tmpfs -o size=256m tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root/etc/systemd/system"
rm -rf multi-user.target.wants timers.target.wants
for unit in systemd-timesyncd systemd-pstore systemd-logind systemd-firstboot systemd-networkd systemd-resolved \
    getty@tty1 console-getty systemd-journal-flush systemd-machine-id-commit; do
    ln -sf /dev/null "$unit.service"
done
exec setpriv --pdeathsig TERM systemd-nspawn -q -D "$1/root" -b --register=no --keep-unit --private-network \
    --machine="ah$$" --console=read-only
"#;

/// A booted systemd; gone when dropped.
pub(crate) struct SystemdBox {
    nspawn: Child,
    leader: u32,
    _dir: TempDir,
}

impl SystemdBox {
    /// Boots one, in about a second.
    pub(crate) async fn boot() -> Self {
        let dir = tempfile::tempdir().expect("a folder to mount on");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", BOOT, "sh"]).arg(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut nspawn = command.spawn().expect("unshare (Debian: util-linux)");
        let pid = nspawn.id().expect("it was just started");
        // What it says is only read when it fails, and is far less than a pipe holds.
        let mut leader = None;
        let bound = Duration::from_secs(60);
        eventually("systemd boots in a box (Debian: systemd-container, dbus)", bound, async || {
            if let Ok(Some(status)) = nspawn.try_wait() {
                panic!(
                    "no box with systemd ({status}); it needs root and the Debian packages systemd-container and dbus"
                );
            }
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            leader = children.split_whitespace().next().and_then(|child| child.parse::<u32>().ok());
            leader.is_some_and(|leader| root_of(leader).join("run/dbus/system_bus_socket").exists())
        })
        .await;
        let mut this = Self { nspawn, leader: leader.expect("seen above"), _dir: dir };
        this.drain();
        eventually("the box is up", bound, async || {
            matches!(this.run(&["systemctl", "is-system-running"]).await.1.trim(), "running" | "degraded")
        })
        .await;
        this
    }

    /// Keeps its console from filling a pipe that nobody reads.
    fn drain(&mut self) {
        for mut stream in [
            self.nspawn.stdout.take().map(|out| Box::pin(out) as std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>),
            self.nspawn.stderr.take().map(|err| Box::pin(err) as std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>),
        ]
        .into_iter()
        .flatten()
        {
            tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
    }

    /// Its root directory as seen from here.
    pub(crate) fn root(&self) -> PathBuf {
        root_of(self.leader)
    }

    /// The D-Bus address of its system bus.
    pub(crate) fn bus(&self) -> String {
        format!("unix:path={}", self.root().join("run/dbus/system_bus_socket").display())
    }

    /// Writes a file into it, with the folders above.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let file = self.root().join(path.trim_start_matches('/'));
        fs_err::create_dir_all(file.parent().expect("a path with a folder")).expect("a folder in the box");
        fs_err::write(&file, text).expect("a file in the box");
        if text.starts_with("#!") {
            use std::os::unix::fs::PermissionsExt;
            fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("an executable in the box");
        }
    }

    /// Puts the program under test where the unit that is shipped looks for it.
    pub(crate) fn install_program(&self) {
        let place = self.root().join("usr/local/bin/afterhours");
        fs_err::copy(env!("CARGO_BIN_EXE_afterhours"), place).expect("the program in the box");
    }

    /// Runs a command in it: whether it ended with 0, and what it printed.
    pub(crate) async fn run(&self, argv: &[&str]) -> (bool, String) {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.leader.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "--"]).args(argv);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("nsenter (util-linux)");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Writes a unit and makes it known.
    pub(crate) async fn unit(&self, name: &str, text: &str) {
        self.write(&format!("/etc/systemd/system/{name}"), text);
        let (good, said) = self.run(&["systemctl", "daemon-reload"]).await;
        assert!(good, "{said}");
    }
}

impl Drop for SystemdBox {
    fn drop(&mut self) {
        let name = format!("afterhours-box-{}", self.nspawn.id().unwrap_or_default());
        // The box ends with its first process, and nspawn with the box; it would not do so the other way round.
        if let Some(leader) = Pid::from_raw(self.leader.cast_signed()) {
            let _ = rustix::process::kill_process(leader, Signal::KILL);
        }
        let until = Instant::now() + Duration::from_secs(5);
        while !(matches!(self.nspawn.try_wait(), Ok(Some(_))) && remove_groups(&name)) && Instant::now() < until {
            std::thread::yield_now();
        }
    }
}

/// Removes the control groups of a box; whether none is left.
fn remove_groups(name: &str) -> bool {
    let trees = fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let groups = trees.map(|tree| tree.join(name)).chain([Path::new("/sys/fs/cgroup").join(name)]);
    let mut none_left = true;
    for group in groups.filter(|group| group.is_dir()) {
        for dir in WalkDir::new(&group).contents_first(true).into_iter().flatten() {
            if dir.file_type().is_dir() {
                let _ = std::fs::remove_dir(dir.path());
            }
        }
        none_left &= !group.is_dir();
    }
    none_left
}

fn root_of(leader: u32) -> PathBuf {
    Path::new("/proc").join(leader.to_string()).join("root")
}
