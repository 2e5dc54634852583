//! `data` and `backup`.

use std::path::Path;
use std::path::PathBuf;

use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::input::BackupInput;
use crate::config::input::DataInput;
use crate::config::input::EvidenceInput;
use crate::config::lower::check;
use crate::config::settings::BackupSettings;
use crate::config::settings::DataSettings;
use crate::config::settings::EvidenceSettings;
use crate::config::settings::Patterns;
use crate::domain::command::Tree;
use crate::domain::span::Span;

const DUMP_DEADLINE: Span = Span::hours(4);
const BACKUP_DEADLINE: Span = Span::hours(4);
const MAX_AGE: Span = Span::days(2);
const MIN_SIZE_BYTES: u64 = 1;
const MAX_SHRINK_PERCENT: u32 = 50;

/// Where the application's data are.
pub(super) fn data(place: &Place, input: Option<DataInput>, tree: &Tree) -> Result<DataSettings, Problem> {
    let install_dir = &tree.install_dir;
    let Some(input) = input else {
        let (include, exclude) = (Patterns::default(), Patterns::default());
        return Ok(DataSettings::Paths { paths: Vec::new(), include, exclude });
    };
    let dump = input.dump.is_some() || input.restore.is_some() || input.verify.is_some();
    let kind = check::exactly_one(place, &[("paths", input.paths.is_some()), ("dump", dump)])?;
    let patterns = [("include", input.include.is_some()), ("exclude", input.exclude.is_some())];
    check::only_with(place, "paths", kind == "paths", &patterns)?;
    check::only_with(place, "dump", kind == "dump", &[("deadline", input.deadline.is_some())])?;
    if let Some(texts) = input.paths {
        return Ok(DataSettings::Paths {
            paths: paths(&place.key("paths"), &texts, install_dir)?,
            include: check::patterns(&place.key("include"), input.include.unwrap_or_default())?,
            exclude: check::patterns(&place.key("exclude"), input.exclude.unwrap_or_default())?,
        });
    }
    let must = |key: &str, args| {
        let place = place.key(key);
        let args = Option::ok_or_else(args, || place.missing("`dump` and `restore` belong together"))?;
        check::command(&place, args, tree)
    };
    Ok(DataSettings::Dump {
        dump: must("dump", input.dump)?,
        restore: must("restore", input.restore)?,
        verify: check::maybe_command(&place.key("verify"), input.verify, tree)?,
        deadline: check::span(&place.key("deadline"), input.deadline, DUMP_DEADLINE)?,
    })
}

/// Data paths that a rollback can put back one by one: none holds another, none holds the program.
fn paths(place: &Place, texts: &[String], install_dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    let mut all: Vec<PathBuf> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let place = place.index(index);
        let path = check::path(&place, text)?;
        if install_dir.starts_with(&path) {
            return Err(place
                .wrong(format!("\"{text}\" holds the program in {}", install_dir.display()))
                .hint("the program has a snapshot of its own; name only the data"));
        }
        if let Some(other) = all.iter().find(|other| path.starts_with(other) || other.starts_with(&path)) {
            return Err(place.wrong(format!("\"{text}\" and \"{}\" stand in each other", other.display())));
        }
        all.push(path);
    }
    Ok(all)
}

/// The backup gate.
pub(super) fn backup(place: &Place, input: BackupInput, tree: &Tree) -> Result<BackupSettings, Problem> {
    let proof = place.key("evidence");
    let evidence = input.evidence.ok_or_else(|| {
        proof.missing("say where the proof of a backup is: evidence = { files = \"/srv/backup/NAME-*.dump\" }")
    })?;
    let evidence = self::evidence(&proof, evidence, tree)?;
    let keep_last = place.key("keep_last");
    if input.keep_last.is_some() && !matches!(evidence, EvidenceSettings::Files { .. }) {
        return Err(keep_last
            .wrong("has a meaning only where the evidence is `files`")
            .hint("let the backup program remove old backups itself"));
    }
    Ok(BackupSettings {
        max_age: check::span(&place.key("max_age"), input.max_age, MAX_AGE)?,
        evidence,
        make: check::maybe_command(&place.key("make"), input.make, tree)?,
        deadline: check::span(&place.key("deadline"), input.deadline, BACKUP_DEADLINE)?,
        keep_last: input.keep_last.map(|count| check::at_least_one(&keep_last, count)).transpose()?,
    })
}

fn evidence(place: &Place, input: EvidenceInput, tree: &Tree) -> Result<EvidenceSettings, Problem> {
    let kinds = [
        ("files", input.files.is_some()),
        ("restic", input.restic.is_some()),
        ("borg", input.borg.is_some()),
        ("manifest", input.manifest.is_some()),
        ("command", input.command.is_some()),
    ];
    let kind = check::exactly_one(place, &kinds)?;
    let files = [
        ("min_size_bytes", input.min_size_bytes.is_some()),
        ("max_shrink_percent", input.max_shrink_percent.is_some()),
        ("test", input.test.is_some()),
    ];
    let restic = [
        ("password_file", input.password_file.is_some()),
        ("tag", input.tag.is_some()),
        ("read_data_subset", input.read_data_subset.is_some()),
    ];
    let borg = [
        ("passphrase_file", input.passphrase_file.is_some()),
        ("prefix", input.prefix.is_some()),
        ("check", input.check.is_some()),
    ];
    check::only_with(place, "files", kind == "files", &files)?;
    check::only_with(place, "restic", kind == "restic", &restic)?;
    check::only_with(place, "borg", kind == "borg", &borg)?;
    check::only_with(place, "restic", matches!(kind, "restic" | "borg"), &[("env", input.env.is_some())])?;
    if let Some(glob) = input.files {
        return Ok(EvidenceSettings::Files {
            glob: check::file_glob(&place.key("files"), &glob)?,
            min_size_bytes: input.min_size_bytes.unwrap_or(MIN_SIZE_BYTES),
            max_shrink_percent: percent(&place.key("max_shrink_percent"), input.max_shrink_percent)?,
            test: check::maybe_command(&place.key("test"), input.test, tree)?,
        });
    }
    let text = |key: &str, text: Option<String>| text.map(|text| check::text(&place.key(key), text)).transpose();
    let path = |key: &str, text: Option<String>| text.map(|text| check::path(&place.key(key), &text)).transpose();
    let secret = |key: &str, text: Option<String>| text.map(|text| check::own_file(&place.key(key), &text)).transpose();
    if let Some(repository) = text("restic", input.restic)? {
        let password = secret("password_file", input.password_file)?;
        return Ok(EvidenceSettings::Restic {
            repository,
            password_file: password.ok_or_else(|| place.key("password_file").missing("restic needs a password"))?,
            tag: text("tag", input.tag)?,
            read_data_subset: text("read_data_subset", input.read_data_subset)?,
            env: check::environment(&place.key("env"), input.env.unwrap_or_default())?,
        });
    }
    if let Some(repository) = text("borg", input.borg)? {
        return Ok(EvidenceSettings::Borg {
            repository,
            passphrase_file: secret("passphrase_file", input.passphrase_file)?,
            prefix: text("prefix", input.prefix)?,
            check: input.check.unwrap_or(false),
            env: check::environment(&place.key("env"), input.env.unwrap_or_default())?,
        });
    }
    if let Some(file) = path("manifest", input.manifest)? {
        return Ok(EvidenceSettings::Manifest { file });
    }
    let command = place.key("command");
    let argv = input.command.ok_or_else(|| command.missing("give the command that prints the evidence"))?;
    Ok(EvidenceSettings::Command { command: check::command(&command, argv, tree)? })
}

fn percent(place: &Place, percent: Option<u32>) -> Result<u32, Problem> {
    match percent.unwrap_or(MAX_SHRINK_PERCENT) {
        percent @ 0..=100 => Ok(percent),
        percent => Err(place.wrong(format!("{percent} is more than 100 percent"))),
    }
}
