//! Documents that cannot rot: every command in them is understood by the program, every configuration can be
//! read, every link leads somewhere, every function that is named exists.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use afterhours::cli::Understood;
use afterhours::cli::understand;
use afterhours::config;

/// Words that stand for something, and what a reader would type.
const PLACEHOLDERS: [(&str, &str); 3] = [("RUN", "7"), ("USER", "anna"), ("VERSION", "4.0")];
const SHELL_STOPS: [&str; 5] = ["|", ">", "&&", "||", ";"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// Path and text of every document.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md"].map(|name| repository().join(name)).to_vec();
    walk(&repository().join("docs"), "md", &mut found);
    assert!(found.len() > 8, "{found:?}");
    found.into_iter().map(|path| (path.clone(), fs_err::read_to_string(path).unwrap())).collect()
}

/// The lines between fences whose language is one of `languages`, block by block.
fn blocks(text: &str, languages: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| !line.trim_start().starts_with("```")).collect();
        if languages.contains(&language) {
            found.push(body.join("\n"));
        }
    }
    found
}

/// What stands between single backticks outside of blocks.
fn spans(text: &str) -> Vec<&str> {
    let mut fenced = false;
    text.lines()
        .filter(|line| {
            let fence =
                line.trim_start().trim_start_matches("//").trim_start_matches(['!', '/', ' ']).starts_with("```");
            fenced ^= fence;
            !fence && !fenced
        })
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

/// Splits a command line as a shell would, as far as documents use one; ends at a comment or a pipe.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut begun) = (String::new(), None, false);
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '"' | '\'') => (quote, begun) = (Some(c), true),
            (None, '#') if !begun => return words,
            (None, c) if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (None, c) => {
                begun = true;
                word.push(c);
            }
        }
    }
    words
}

/// The arguments of an `afterhours …` line as a reader would type it; nothing for any other line.
fn command(line: &str) -> Option<Vec<String>> {
    let line = line.trim_start().trim_start_matches("$ ").trim_start_matches("sudo ");
    if !line.starts_with("afterhours ") || line.contains('…') || line.contains("...") {
        return None;
    }
    let typed = |word: String| {
        if let Some((_, typed)) = PLACEHOLDERS.iter().find(|(placeholder, _)| *placeholder == word) {
            return (*typed).to_owned();
        }
        // `old|new` is one of them, NAME and {app} stand for a name.
        let word = word
            .split_once('|')
            .filter(|(first, _)| !first.is_empty())
            .map_or(word.clone(), |(first, _)| first.to_owned());
        if word.contains('{') {
            return "7".to_owned();
        }
        let upper = word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
        if upper { word.to_lowercase() } else { word }
    };
    let words = words(line).into_iter().take_while(|word| !SHELL_STOPS.contains(&word.as_str()));
    Some(words.map(typed).collect())
}

#[test]
fn every_command_in_a_document_is_understood() {
    let mut understood = BTreeSet::new();
    for (path, text) in documents() {
        for line in blocks(&text, &["console", "sh"]).iter().flat_map(|block| block.lines()) {
            let Some(args) = command(line) else { continue };
            assert_eq!(understand(&args), Understood::Whole, "{}: {line}", path.display());
            understood.insert(args);
        }
        for span in spans(&text) {
            let Some(args) = command(span) else { continue };
            let answer = understand(&args);
            assert!(!matches!(answer, Understood::Not(_)), "{}: {span}: {answer:?}", path.display());
            understood.insert(args);
        }
    }
    assert!(understood.len() > 40, "{}", understood.len());
}

#[test]
fn every_command_in_a_hint_is_understood() {
    let mut sources = Vec::new();
    walk(&repository().join("src"), "rs", &mut sources);
    let mut understood = 0;
    for path in sources {
        let text = fs_err::read_to_string(&path).unwrap();
        for span in spans(&text) {
            let Some(args) = command(span) else { continue };
            let answer = understand(&args);
            assert!(!matches!(answer, Understood::Not(_)), "{}: {span}: {answer:?}", path.display());
            understood += 1;
        }
    }
    assert!(understood > 40, "{understood}");
}

#[test]
fn what_is_not_understood_is_seen() {
    let ask = |line| understand(&command(line).unwrap());
    assert_eq!(
        ask("$ sudo afterhours gate close orders --until 06:00 --message \"We are away.\"  # comment"),
        Understood::Whole
    );
    assert_eq!(ask("afterhours run resolve RUN --as old|new"), Understood::Whole);
    assert_eq!(ask("afterhours gate show {app}"), Understood::Whole);
    assert_eq!(ask("afterhours run resolve RUN"), Understood::Part);
    assert!(matches!(ask("afterhours gate shut orders"), Understood::Not(_)));
    assert!(matches!(ask("afterhours status --everything"), Understood::Not(_)));
    assert_eq!(command("systemctl start afterhours"), None);
}

#[test]
fn every_configuration_in_a_document_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs_err::write(&secret, "secret").unwrap();
    let mut read = 0;
    for (path, text) in documents() {
        for block in blocks(&text, &["toml"]) {
            // The file with the password is not on this machine.
            let text = block.replace("/etc/afterhours/mail.pw", secret.to_str().unwrap());
            config::parse(&text, "the document").unwrap_or_else(|error| panic!("{}: {error}\n{block}", path.display()));
            read += 1;
        }
    }
    assert!(read > 5, "{read}");
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for (path, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(path.parent().unwrap().join(target).exists(), "{} links to {target}", path.display());
            followed += 1;
        }
    }
    assert!(followed > 5, "{followed}");
}

#[test]
fn what_the_architecture_names_exists() {
    let text = fs_err::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let mut sources = Vec::new();
    walk(&repository().join("src"), "rs", &mut sources);
    let all: String = sources.iter().map(|path| fs_err::read_to_string(path).unwrap()).collect();
    let mut named = 0;
    for span in spans(&text) {
        if let Some((_, name)) =
            span.split_once("::").filter(|(of, _)| of.chars().all(|c| c.is_alphanumeric() || c == '_'))
        {
            let name = name.split_once("::").map_or(name, |(_, name)| name);
            let name = name.trim_end_matches("()");
            let there = [
                format!("fn {name}("),
                format!("fn {name}<"),
                format!("{name}: "),
                format!("{name}("),
                format!("{name} {{"),
            ];
            assert!(there.iter().any(|there| all.contains(there.as_str())), "there is no {span}");
            named += 1;
        }
        let is_path = span.contains('/') && span.ends_with(".rs");
        if is_path {
            let there = [span.to_owned(), format!("src/{span}")];
            let anywhere = there.iter().any(|path| repository().join(path).exists())
                || repository().join("src/notify/template").join(span).exists();
            assert!(anywhere, "there is no {span}");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}

#[test]
fn every_module_stands_in_the_code_map() {
    let text = fs_err::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let spans: BTreeSet<&str> = spans(&text).into_iter().collect();
    for entry in fs_err::read_dir(repository().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let there = [format!("{name}/"), format!("{name}.rs")];
        let helper = ["lib", "generated"].contains(&name);
        assert!(helper || there.iter().any(|there| spans.contains(there.as_str())), "{name} is not in the code map");
    }
}

#[test]
fn the_unit_is_as_the_manual_explains_it() {
    let read = |path: &str| fs_err::read_to_string(repository().join(path)).unwrap();
    let (unit, manual) = (read("dist/afterhours.service"), read("docs/manual/systemd-unit.md"));
    let explained: Vec<&str> = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(explained.len() >= 5, "{explained:?}");
    for line in explained {
        assert!(unit.lines().any(|there| there == line), "{line}");
    }
    // Where systemd makes the directories is where the defaults expect them.
    let defaults = config::parse(config::DEFAULT, "default").unwrap().daemon;
    assert_eq!(defaults.data_dir, Path::new("/var/lib").join(value(&unit, "StateDirectory")));
    assert_eq!(defaults.socket.parent().unwrap(), Path::new("/run").join(value(&unit, "RuntimeDirectory")));
}

fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap()
}
