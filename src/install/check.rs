//! Looks for what would make a swap, a snapshot or a restore fail, before anybody is disturbed.
//!
//! What can be tried is tried: a file is written, renamed and exchanged where the real thing will be.
//! Every finding that is not good names its remedy.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use walkdir::WalkDir;

use crate::config::settings::AppSettings;
use crate::config::settings::DataSettings;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::exec::missing_program;
use crate::files::account::group_name;
use crate::files::account::user_name;
use crate::files::trusted::Untrusted;
use crate::install::durable;
use crate::install::error::InstallError;
use crate::install::error::denied;
use crate::install::keep::Keep;
use crate::install::keep::Kept;
use crate::install::layout::Layout;
use crate::install::layout::parent;
use crate::install::marks;
use crate::install::measure;
use crate::install::measure::Amount;
use crate::install::openers;
use crate::install::owner::Owner;
use crate::install::quota;
use crate::install::quota::Holder;
use crate::install::quota::Taken;
use crate::install::scope::Scope;
use crate::install::scope::ScopeTexts;
use crate::install::snapshot;
use crate::install::trash;
use crate::install::tree;
use crate::install::trial;
use crate::install::walk::DEPTH_MAX;
use crate::install::walk::Several;

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

/// The system takes no path of so many bytes.
const PATH_BYTES_MAX: usize = 4096;
/// How long the name of a staged tree may be, with what belongs to it.
const NAME_BYTES_MAX: usize = 260;

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
    let writes = trial::check(layout);
    let writable = writes.remedy.is_none();
    findings.push(writes);
    let target = match &owner {
        Some(Ok(owner)) => Some(*owner),
        Some(Err(_)) | None => None,
    };
    let looked = Looked::at(layout, app);
    findings.push(ownership(layout, owner, &looked));
    findings.extend(data(app, &looked));
    findings.extend(program(layout, &looked));
    if writable {
        findings.extend(space(layout, app, need, target, &looked));
    }
    findings.extend(trash::check(layout));
    findings.push(openers::check(app));
    findings
}

/// What there is, looked at once.
struct Looked {
    installed: Amount,
    kept: Vec<Kept>,
    /// Why it is not known what is kept.
    unknown: Option<InstallError>,
    data: Vec<(PathBuf, Amount)>,
}

impl Looked {
    fn at(layout: &Layout, app: &AppSettings) -> Self {
        let everything = Scope::new(&ScopeTexts::default());
        let installed = everything.map(|scope| measure::measure(&layout.install_dir, &scope)).unwrap_or_default();
        let kept = Keep::of(app).and_then(|keep| keep.walk(&layout.install_dir));
        let (kept, unknown) = kept.map_or_else(|error| (Vec::new(), Some(error)), |kept| (kept, None));
        let data = match Scope::new(&snapshot::scope_texts(app)) {
            Ok(scope) => {
                let measured = |path: PathBuf| (measure::measure(&path, &scope), path);
                let paths = snapshot::data_paths(app).unwrap_or_default().into_iter().map(measured);
                paths.map(|(amount, path)| (path, amount)).collect()
            }
            Err(_) => Vec::new(),
        };
        Self { installed, kept, unknown, data }
    }
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
            return fatal(format!("{shown} cannot be looked at: {error}"), denied(dir, "as its owner"));
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
    if let Some(marked) = marks::in_the_way_of(dir) {
        let (marked, word) = (marked.display(), marks::word(&marked));
        return fatal(
            format!("{marked} is append-only or immutable, so {shown} cannot be exchanged"),
            format!("chattr -i -a {word}"),
        );
    }
    vec![Finding::good(CHECK, format!("{shown} is a directory of its own"))]
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

/// Who the new tree will belong to.
fn ownership(layout: &Layout, wanted: Option<Result<Owner, String>>, looked: &Looked) -> Finding {
    const CHECK: &str = "owner";
    let dir = &layout.install_dir;
    let Ok(about) = fs::symlink_metadata(dir) else {
        return Finding::fatal(CHECK, format!("{} cannot be looked at", dir.display()), denied(dir, "as its owner"));
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
            format!("the new version must belong to {}, which only root can arrange", user_name(target.uid)),
            "run Afterhours as root, or set `owner` to the user it runs as",
        );
    }
    if target != actual {
        return Finding::warning(
            CHECK,
            format!("{} belongs to {}, the new version will belong to {}", dir.display(), whose(actual), whose(target)),
            "correct `owner`, or chown the installation, if that is not intended",
        );
    }
    match others(dir, target, &looked.kept) {
        0 => Finding::good(CHECK, format!("everything belongs to {}", whose(target))),
        count => Finding::warning(
            CHECK,
            format!(
                "{count} entries of {} belong to somebody else; in the new version all belong to {}",
                dir.display(),
                whose(target)
            ),
            "list in `keep` what must stay as it is, or set `owner`",
        ),
    }
}

/// User and group by name, and by number, which is what counts.
fn whose(owner: Owner) -> String {
    format!("{}:{} ({}:{})", user_name(owner.uid), group_name(owner.gid), owner.uid, owner.gid)
}

/// How many entries that are not kept belong to somebody else.
fn others(dir: &Path, owner: Owner, kept: &[Kept]) -> usize {
    let kept: HashSet<PathBuf> = kept.iter().map(|kept| dir.join(&kept.path)).collect();
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
fn data(app: &AppSettings, looked: &Looked) -> Vec<Finding> {
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
                format!("{shown} cannot be read: {}", trial::io_of(error)),
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
    findings.extend(looked.data.iter().flat_map(|(path, amount)| hindered(path, amount)));
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

/// What would keep the data at `root` from being copied or put back.
fn hindered(root: &Path, amount: &Amount) -> Vec<Finding> {
    const CHECK: &str = "data";
    let mut findings = Vec::new();
    let Amount { unreadable, marked, deep, .. } = amount;
    if !unreadable.is_empty() {
        let text = format!("{} of the data cannot be read: {}", entries(unreadable), unreadable.told());
        let remedy = format!("{}; or name what need not be copied in `exclude`", denied(root, "as their owner"));
        findings.push(Finding::fatal(CHECK, text, remedy));
    }
    // A file is put back by exchanging it in its directory.
    let above = parent(root);
    if !marked.is_empty() || (root.is_file() && marks::is_at(above)) {
        let mut marked = marked.clone();
        if root.is_file() && marks::is_at(above) {
            marked.note(above.to_owned());
        }
        let text = format!(
            "{} of the data {} append-only or immutable, so a failed update could not put the data back: {}",
            entries(&marked),
            if marked.count == 1 { "is" } else { "are" },
            marked.told()
        );
        let remedy =
            format!("{}; or, where it need not be put back, name it in `exclude`", marks::remedy(&marked, root));
        findings.push(Finding::fatal(CHECK, text, remedy));
    }
    if !deep.is_empty() {
        let text = format!("more than {DEPTH_MAX} directories in one another are not copied: {}", deep.told());
        findings.push(Finding::fatal(CHECK, text, "move that elsewhere, or name it in `exclude`"));
    }
    findings
}

fn entries(several: &Several) -> String {
    if several.count == 1 { "1 entry".to_owned() } else { format!("{} entries", several.count) }
}

/// What in the program is no hindrance to its exchange but to what comes after.
fn program(layout: &Layout, looked: &Looked) -> Vec<Finding> {
    let mut findings = Vec::new();
    let marked = &looked.installed.marked;
    if !marked.is_empty() {
        let text = format!(
            "{} of {} {} append-only or immutable: {}; the old version cannot be removed one day, and what of it is kept \
             loses that mark in the new one",
            entries(marked),
            layout.install_dir.display(),
            if marked.count == 1 { "is" } else { "are" },
            marked.told()
        );
        findings.push(Finding::warning("install_dir", text, marks::remedy(marked, &layout.install_dir)));
    }
    if let Some(error) = &looked.unknown {
        let remedy = error.hint().unwrap_or_else(|| "correct the patterns of `keep`".to_owned());
        findings.push(Finding::fatal("keep", Failure::from_error(error).to_string(), remedy));
    }
    let mut long = Several::default();
    let before = layout.staged_dir().as_os_str().len() + NAME_BYTES_MAX;
    for kept in looked.kept.iter().filter(|kept| before + kept.path.as_os_str().len() >= PATH_BYTES_MAX) {
        long.note(layout.install_dir.join(&kept.path));
    }
    if !long.is_empty() {
        let text =
            format!("{} with too long a path to be carried over into a new version: {}", entries(&long), long.told());
        let remedy = "move that out of install_dir, or let no pattern of `keep` and no data path hold it";
        findings.push(Finding::fatal("keep", text, remedy));
    }
    findings
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
fn space(layout: &Layout, app: &AppSettings, need: SpaceNeed, target: Option<Owner>, looked: &Looked) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut loads: BTreeMap<u64, Load> = BTreeMap::new();
    let mut put = |at: &Path, bytes: u64, entries: u64, owner: Option<Owner>| {
        let Ok(about) = fs::metadata(existing(at)) else { return };
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
    put(&layout.staging_dir, need.download_bytes, 0, None);
    put(&layout.staging_dir, need.unpacked_bytes, looked.installed.entries, owner);
    if !shares_blocks(existing(&layout.staging_dir)) {
        let files = looked.kept.iter().filter(|kept| kept.about.is_file());
        put(&layout.staging_dir, files.map(|kept| kept.about.len()).sum(), 0, owner);
    }
    if let DataSettings::Dump { .. } = app.data {
        let (bytes, finding) = dump_size(layout, need);
        findings.push(finding);
        put(&layout.staging_dir, bytes, 1, None);
    }
    for (path, amount) in &looked.data {
        let owner = owner_of(path);
        match snapshot::folder_for(app, path) {
            Some(folder) => {
                let bytes = if shares_blocks(existing(&folder)) { amount.disk_bytes / 50 } else { amount.disk_bytes };
                put(&folder, bytes, amount.entries, owner);
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

/// `path`, or what is there of the directories above it.
pub(super) fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
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
    let Ok(free) = rustix::fs::statvfs(existing(&load.at)) else { return Vec::new() };
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
