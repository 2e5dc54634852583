//! Looks for what would make a swap, a snapshot or a restore fail, before anybody is disturbed.
//!
//! What can be tried is tried: a file is written, renamed and exchanged where the real thing will be.
//! Every finding that is not good names its remedy.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use rustix::fs::StatxAttributes;
use rustix::fs::StatxFlags;
use walkdir::WalkDir;

use crate::config::settings::AppSettings;
use crate::config::settings::DataSettings;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::exec::missing_program;
use crate::files::trusted::Untrusted;
use crate::files::trusted::trusted_dir;
use crate::install::durable;
use crate::install::error::InstallError;
use crate::install::keep::Keep;
use crate::install::layout::Layout;
use crate::install::layout::parent;
use crate::install::measure;
use crate::install::openers;
use crate::install::owner::Owner;
use crate::install::quota;
use crate::install::quota::Holder;
use crate::install::quota::Taken;
use crate::install::scope::Scope;
use crate::install::scope::ScopeTexts;
use crate::install::snapshot;
use crate::install::tree;

/// What a run will need beside the data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpaceNeed {
    /// The archives to fetch.
    pub download_bytes: u64,
    /// The trees to unpack.
    pub unpacked_bytes: u64,
    /// The newest backup, where its size is known: a dump of the data may be as large.
    pub backup_bytes: Option<u64>,
}

/// Below this much more than needed, we do not begin.
const SPARE_BYTES: u64 = 1024 * 1024;
/// No more entries of the installation are looked at for their owner.
const OWNERS_MAX: usize = 20_000;

/// Everything, in the order a person would look at it.
pub(super) fn check(
    layout: &Layout,
    app: &AppSettings,
    need: SpaceNeed,
    owner: Option<Result<Owner, String>>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let place = place(layout);
    let there = place.iter().all(|finding| finding.severity != crate::domain::finding::Severity::Fatal);
    findings.extend(place);
    if !there {
        return findings;
    }
    let writes = try_exchange(layout);
    let writable = writes.remedy.is_none();
    findings.push(writes);
    let target = match &owner {
        Some(Ok(owner)) => Some(*owner),
        Some(Err(_)) | None => None,
    };
    findings.push(ownership(layout, app, owner));
    let data = data(app);
    findings.extend(data);
    if writable {
        findings.extend(space(layout, app, need, target));
    }
    findings.push(openers::check(app));
    findings
}

/// The installation itself: a plain directory, with nothing mounted on or in it.
fn place(layout: &Layout) -> Vec<Finding> {
    const CHECK: &str = "install_dir";
    let dir = &layout.install_dir;
    let shown = dir.display();
    let fatal = |text: String, remedy: String| vec![Finding::fatal(CHECK, text, remedy)];
    let about = match fs::symlink_metadata(dir) {
        Ok(about) => about,
        Err(error) if durable::is_absent(&error) => {
            return fatal(
                format!("{shown} does not exist"),
                "install the application first, or correct install_dir".into(),
            );
        }
        Err(error) => {
            return fatal(
                format!("{shown} cannot be looked at: {error}"),
                "run Afterhours as root or as its owner".into(),
            );
        }
    };
    if about.file_type().is_symlink() {
        let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.clone());
        return fatal(
            format!("{shown} is a link to {}", real.display()),
            format!("set install_dir to {}, where the link leads", real.display()),
        );
    }
    if !about.is_dir() {
        return fatal(format!("{shown} is not a directory"), "correct install_dir".into());
    }
    if snapshot::is_mount_point(dir) {
        return fatal(
            format!("{shown} is a mount point, which cannot be exchanged"),
            format!(
                "install the application in a directory below it, or mount the file system at {}",
                parent(dir).display()
            ),
        );
    }
    let mounts = mounts_below(dir);
    if let Some(mount) = mounts.first() {
        return fatal(
            format!("{} is mounted inside the installation and would go away with the old version", mount.display()),
            "mount it outside install_dir and put a link in its place, listed in `keep`".into(),
        );
    }
    if is_immutable(dir) {
        return fatal(format!("{shown} is marked immutable"), format!("chattr -i {shown}"));
    }
    vec![Finding::good(CHECK, format!("{shown} is a directory of its own"))]
}

fn is_immutable(path: &Path) -> bool {
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
        .is_ok_and(|about| about.stx_attributes.contains(StatxAttributes::IMMUTABLE))
}

/// A path as it stands in the table of mounts.
pub(super) fn unescaped(field: &str) -> PathBuf {
    PathBuf::from(field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"))
}

/// What is mounted below `dir`.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    text.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescaped)
        .filter(|mount| mount.starts_with(&dir) && *mount != dir)
        .collect()
}

/// Does in small what the swap will do: writes, renames, and exchanges a directory beside the installation with one in the staging folder.
fn try_exchange(layout: &Layout) -> Finding {
    const CHECK: &str = "exchange";
    let beside = parent(&layout.install_dir);
    if let Err(error) = durable::create_dir(&layout.staging_dir) {
        return refused(CHECK, &layout.staging_dir, &io_of(error));
    }
    // Nothing of ours is made where others could exchange it under our hands.
    let is_ours = trusted_dir(beside).is_ok();
    if !is_ours && let Some(elsewhere) = other_file_system(beside, &layout.staging_dir) {
        return elsewhere;
    }
    match trial(if is_ours { beside } else { &layout.staging_dir }, &layout.staging_dir) {
        Ok(true) => Finding::good(CHECK, "directories are exchanged in one system call"),
        Ok(false) => Finding::good(CHECK, "directories are exchanged as a journalled pair of renames"),
        Err(error) => refused(CHECK, beside, &error),
    }
}

/// What is wrong where the installation and the staging folder are on two file systems.
fn other_file_system(beside: &Path, staging_dir: &Path) -> Option<Finding> {
    let dev = |path: &Path| fs::metadata(path).map(|about| about.dev());
    match (dev(beside), dev(staging_dir)) {
        (Ok(beside), Ok(staging)) if beside == staging => None,
        (Err(error), _) | (_, Err(error)) => Some(refused("exchange", beside, &error)),
        _ => Some(refused("exchange", beside, &io::ErrorKind::CrossesDevices.into())),
    }
}

fn trial(beside: &Path, staging_dir: &Path) -> io::Result<bool> {
    let name = ".afterhours-test-";
    let ours = tempfile::Builder::new().prefix(name).tempdir_in(beside)?;
    let staged = tempfile::Builder::new().prefix(name).tempdir_in(staging_dir)?;
    let (written, renamed) = (staged.path().join("written"), staged.path().join("renamed"));
    fs::write(&written, [0; 4096])?;
    fs::File::open(&written)?.sync_all()?;
    fs::rename(&written, &renamed)?;
    match rustix::fs::renameat_with(CWD, ours.path(), CWD, staged.path(), RenameFlags::EXCHANGE) {
        Ok(()) if ours.path().join("renamed").exists() => Ok(true),
        Ok(()) => Err(io::Error::other("an exchange was accepted but not done")),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            let moved = beside.join(format!("{}-moved", staged.path().file_name().unwrap_or_default().display()));
            fs::rename(staged.path(), &moved)?;
            fs::rename(&moved, staged.path())?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn io_of(error: crate::install::error::InstallError) -> io::Error {
    match error {
        crate::install::error::InstallError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}

fn refused(check: &str, path: &Path, error: &io::Error) -> Finding {
    let shown = path.display();
    let remedy = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => format!("mount -o remount,rw the file system of {shown}"),
        io::ErrorKind::CrossesDevices => {
            format!(
                "the staging folder must be on the file system of {shown}: correct staging_dir, or remove the mount or link in between"
            )
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("make room on the file system of {shown}"),
        io::ErrorKind::PermissionDenied => format!("run Afterhours as root, or let its user write to {shown}"),
        _ => format!("see to it that directories beside {shown} can be written and renamed"),
    };
    Finding::fatal(check, format!("writing and renaming beside {shown} does not work: {error}"), remedy)
}

/// Who the new tree will belong to.
fn ownership(layout: &Layout, app: &AppSettings, wanted: Option<Result<Owner, String>>) -> Finding {
    const CHECK: &str = "owner";
    let dir = &layout.install_dir;
    let Ok(about) = fs::symlink_metadata(dir) else {
        return Finding::fatal(CHECK, format!("{} cannot be looked at", dir.display()), "run Afterhours as root");
    };
    let actual = Owner { uid: about.uid(), gid: about.gid() };
    let target = match wanted {
        Some(Err(error)) => {
            return Finding::fatal(
                CHECK,
                format!("failed to {error}"),
                "create the user and group, or correct `owner`",
            );
        }
        Some(Ok(owner)) => owner,
        None => actual,
    };
    if !tree::is_root() && target.uid != rustix::process::geteuid().as_raw() {
        return Finding::fatal(
            CHECK,
            format!("the new version must belong to user {}, which only root can arrange", target.uid),
            "run Afterhours as root, or set `owner` to the user it runs as",
        );
    }
    if target != actual {
        return Finding::warning(
            CHECK,
            format!(
                "{} belongs to {}:{}, the new version will belong to {}:{}",
                dir.display(),
                actual.uid,
                actual.gid,
                target.uid,
                target.gid
            ),
            "correct `owner`, or chown the installation, if that is not intended",
        );
    }
    match others(dir, target, app) {
        0 => Finding::good(CHECK, format!("everything belongs to {}:{}", target.uid, target.gid)),
        count => Finding::warning(
            CHECK,
            format!(
                "{count} entries of {} belong to somebody else; in the new version all belong to {}:{}",
                dir.display(),
                target.uid,
                target.gid
            ),
            "list in `keep` what must stay as it is, or set `owner`",
        ),
    }
}

/// How many entries that are not kept belong to somebody else.
fn others(dir: &Path, owner: Owner, app: &AppSettings) -> usize {
    let Ok(kept) = Keep::of(app).and_then(|keep| keep.walk(dir)) else { return 0 };
    let kept: std::collections::HashSet<PathBuf> = kept.into_iter().map(|kept| dir.join(kept.path)).collect();
    WalkDir::new(dir)
        .into_iter()
        .filter_map(Result::ok)
        .take(OWNERS_MAX)
        .filter(|entry| !kept.contains(entry.path()))
        .filter_map(|entry| entry.metadata().ok())
        .filter(|about| (about.uid(), about.gid()) != (owner.uid, owner.gid))
        .count()
}

/// The data: there, readable, and what a file leaves beside itself.
fn data(app: &AppSettings) -> Vec<Finding> {
    const CHECK: &str = "data";
    let paths = match &app.data {
        DataSettings::Paths { paths, .. } => paths,
        DataSettings::Dump { dump, restore, verify, .. } => {
            let commands = [Some(dump), Some(restore), verify.as_ref()];
            return vec![match commands.into_iter().flatten().find_map(missing_program) {
                None => Finding::good(CHECK, "the data are dumped and restored by commands"),
                Some(program) => Finding::fatal(
                    CHECK,
                    format!("{program} is missing or cannot be run, so the data could not be put back"),
                    "correct the commands of `data`, or install the program",
                ),
            }];
        }
    };
    let mut findings: Vec<Finding> = Vec::new();
    for path in paths {
        let shown = path.display();
        if let Err(error @ InstallError::LeadsElsewhere { source: Untrusted::Owner { .. }, .. }) =
            snapshot::resolve(path)
        {
            let remedy = error.hint().unwrap_or_default();
            findings.push(Finding::fatal(CHECK, Failure::from_error(&error).to_string(), remedy));
            continue;
        }
        if let Err(error) = tree::open_file(&fs::canonicalize(path).unwrap_or_else(|_| path.clone())) {
            findings.push(Finding::fatal(
                CHECK,
                format!("{shown} cannot be read: {}", io_of(error)),
                "correct the data paths, or let Afterhours read them",
            ));
            continue;
        }
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        if app.install_dir.starts_with(&real) || app.staging_dir.starts_with(&real) {
            findings.push(Finding::fatal(
                CHECK,
                format!("{shown} holds the installation itself, which a restore would undo as well"),
                "name the directories with data as data paths",
            ));
        }
        for tail in ["-wal", "-journal"] {
            let beside = PathBuf::from(format!("{shown}{tail}"));
            if path.is_file() && beside.exists() && !paths.contains(&beside) {
                findings.push(Finding::warning(
                    CHECK,
                    format!("{} belongs to {shown} but is not among the data paths", beside.display()),
                    "name the directory that holds both as the data path",
                ));
            }
        }
    }
    let amount =
        amount_of_data(app).iter().filter(|(path, _)| path.exists()).map(|(_, amount)| amount.unreadable).sum::<u64>();
    if amount > 0 {
        findings.push(Finding::fatal(
            CHECK,
            format!("{amount} entries of the data cannot be read"),
            "run Afterhours as root, or exclude them",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::good(
            CHECK,
            match paths.is_empty() {
                true => "no data are configured: a snapshot holds the program alone",
                false => "all data paths can be read",
            },
        ));
    }
    findings
}

fn amount_of_data(app: &AppSettings) -> Vec<(PathBuf, measure::Amount)> {
    let scope = Scope::new(&snapshot::scope_texts(app));
    let measured =
        |path: PathBuf| scope.as_ref().ok().map(|scope| (measure::measure(&path, scope), path)).map(|(a, p)| (p, a));
    snapshot::data_paths(app).unwrap_or_default().into_iter().filter_map(measured).collect()
}

/// What one file system must take.
#[derive(Debug, Default)]
struct Load {
    at: PathBuf,
    bytes: u64,
    entries: u64,
    /// The same by whom it counts for.
    taken: BTreeMap<Holder, Taken>,
}

/// Free space, inodes and quotas on every file system that is written to. The new tree will belong to `target`, else to
/// the owner of the old one.
fn space(layout: &Layout, app: &AppSettings, need: SpaceNeed, target: Option<Owner>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut loads: BTreeMap<u64, Load> = BTreeMap::new();
    let mut put = |at: &Path, bytes: u64, entries: u64, owner: Option<Owner>| {
        let Ok(about) = fs::metadata(at) else { return };
        let load = loads.entry(about.dev()).or_default();
        load.at = at.to_owned();
        load.bytes = load.bytes.saturating_add(bytes);
        load.entries = load.entries.saturating_add(entries);
        // Only root can give files away.
        let ourselves = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let owner = owner.filter(|_| tree::is_root()).unwrap_or(ourselves);
        for holder in quota::holders(owner) {
            let taken = load.taken.entry(holder).or_default();
            taken.bytes = taken.bytes.saturating_add(bytes);
            taken.entries = taken.entries.saturating_add(entries);
        }
    };
    let owner = target.or_else(|| owner_of(&layout.install_dir));
    let everything = Scope::new(&ScopeTexts::default());
    let installed = everything.map(|scope| measure::measure(&layout.install_dir, &scope)).unwrap_or_default();
    put(&layout.staging_dir, need.download_bytes, 0, None);
    put(&layout.staging_dir, need.unpacked_bytes, installed.entries, owner);
    if let Ok(kept) = Keep::of(app).and_then(|keep| keep.walk(&layout.install_dir))
        && !shares_blocks(&layout.staging_dir)
    {
        put(
            &layout.staging_dir,
            kept.iter().filter(|kept| kept.about.is_file()).map(|kept| kept.about.len()).sum(),
            0,
            owner,
        );
    }
    if let DataSettings::Dump { .. } = app.data {
        let (bytes, finding) = dump_size(layout, need);
        findings.push(finding);
        put(&layout.staging_dir, bytes, 1, None);
    }
    for (path, amount) in amount_of_data(app) {
        let owner = owner_of(&path);
        match snapshot::folder_for(app, &path) {
            Some(folder) => {
                put(
                    &folder,
                    if shares_blocks(&folder) { amount.disk_bytes / 50 } else { amount.disk_bytes },
                    amount.entries,
                    owner,
                );
                // Only in use by a run that has a snapshot in it.
                let _ = fs::remove_dir(&folder);
            }
            None => put(&layout.staging_dir, amount.disk_bytes, amount.entries, owner),
        }
    }
    for (dev, load) in loads {
        findings.extend(fits(&load));
        findings.extend(quota::check(dev, parent(&load.at), &load.taken));
    }
    findings
}

fn owner_of(path: &Path) -> Option<Owner> {
    fs::metadata(path).ok().map(|about| Owner { uid: about.uid(), gid: about.gid() })
}

/// How large a dump will probably be: like the last one, else like the newest backup.
fn dump_size(layout: &Layout, need: SpaceNeed) -> (u64, Finding) {
    const CHECK: &str = "dump_size";
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    let last = fs::read_to_string(layout.dump_size()).ok().and_then(|text| text.parse().ok());
    match (last, need.backup_bytes) {
        (Some(bytes), _) => {
            let text = format!("a dump of {} MiB is expected, like the last one", mib(bytes));
            (bytes, Finding::good(CHECK, text))
        }
        (None, Some(bytes)) => {
            let text = format!("a dump of {} MiB is expected, like the newest backup", mib(bytes));
            (bytes, Finding::good(CHECK, text))
        }
        (None, None) => {
            let text = "how much room a dump of the data needs is not known before the first run";
            let remedy = format!(
                "see yourself that it has room at {}; describing `backup` with its evidence tells its size",
                layout.staging_dir.display()
            );
            (0, Finding::warning(CHECK, text, remedy))
        }
    }
}

fn fits(load: &Load) -> Vec<Finding> {
    let at = if load.at.exists() { load.at.as_path() } else { parent(&load.at) };
    let Ok(free) = rustix::fs::statvfs(at) else { return Vec::new() };
    let shown = parent(&load.at).display();
    let needed = load.bytes.saturating_add(load.bytes / 20).saturating_add(SPARE_BYTES);
    let free_bytes = free.f_bavail.saturating_mul(free.f_frsize);
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    let mut findings = vec![if free_bytes < needed {
        let missing = mib(needed - free_bytes);
        Finding::fatal(
            "space",
            format!("{} MiB are needed at {shown} and {} MiB are free", mib(needed), mib(free_bytes)),
            format!("free {missing} MiB on that file system"),
        )
    } else {
        Finding::good(
            "space",
            format!("{} MiB are needed at {shown} and {} MiB are free", mib(needed), mib(free_bytes)),
        )
    }];
    // File systems that make inodes as needed count none.
    if free.f_files > 0 {
        let text = format!("{} inodes are needed at {shown} and {} are free", load.entries, free.f_favail);
        findings.push(if free.f_favail < load.entries {
            Finding::fatal("inodes", text, "remove small files on that file system")
        } else {
            Finding::good("inodes", text)
        });
    }
    findings
}

/// Whether copies on this file system cost nothing.
fn shares_blocks(dir: &Path) -> bool {
    let clone = || -> io::Result<bool> {
        use std::io::Write;
        let mut from = tempfile::tempfile_in(dir)?;
        from.write_all(&[1; 8192])?;
        let to = tempfile::tempfile_in(dir)?;
        Ok(rustix::fs::ioctl_ficlone(&to, &from).is_ok())
    };
    clone().unwrap_or(false)
}
