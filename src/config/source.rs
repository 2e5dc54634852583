//! A configuration's text and where each key stands in it.
//!
//! The text is read twice: here as a tree that knows its lines, and by serde as
//! [`super::input`]. The tree answers two questions: which keys does nobody understand, and in
//! which line stands the key that somebody complains about.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;
use toml::de::Deserializer;

use crate::config::error::ConfigError;
use crate::config::error::OTHERS;
use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::schema::Schema;
use crate::config::settings::Secret;

/// Whether a key names a file with a secret in it: every one that names a file of ours does, but for authorities, which
/// everybody may know.
pub(super) fn names_a_secret(key: &str) -> bool {
    key.ends_with("_file") && key != "ca_file"
}

/// A text with the places of its keys.
pub(super) struct Source<'t> {
    text: &'t str,
    origin: &'t str,
    entries: BTreeMap<Place, Entry>,
    unknown: Vec<Problem>,
    secrets: Vec<Secret>,
    left_out: Vec<Part>,
}

/// A part of the file without which the rest can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// `[app.NAME]`.
    App(String),
    /// `daemon.mail`.
    Mail,
}

/// Where one key stands, in bytes.
struct Entry {
    key: Range<usize>,
    value: Range<usize>,
}

impl<'t> Source<'t> {
    /// Takes a text apart.
    ///
    /// # Errors
    /// It is no TOML.
    pub(super) fn new(text: &'t str, origin: &'t str) -> Result<Self, ConfigError> {
        let (unknown, secrets, left_out) = (Vec::new(), Vec::new(), Vec::new());
        let mut source = Self { text, origin, entries: BTreeMap::new(), unknown, secrets, left_out };
        let table = DeTable::parse(text).map_err(|error| source.toml_error(&error))?;
        source.enter_table(table.get_ref(), &Place::default());
        Ok(source)
    }

    /// Reads the text as `T`; a key that `T` does not have is an error, not silence.
    ///
    /// # Errors
    /// A key is unknown, or a value has the wrong type.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Result<T, ConfigError> {
        let mut table = DeTable::parse(self.text).map_err(|error| self.toml_error(&error))?;
        for part in &self.left_out {
            let (above, name) = match part {
                Part::App(name) => ("app", name.as_str()),
                Part::Mail => ("daemon", "mail"),
            };
            if let Some(DeValue::Table(above)) = table.get_mut().get_mut(above).map(Spanned::get_mut) {
                above.remove(name);
            }
        }
        let schema = Schema::of::<T>();
        self.secrets.clear();
        self.check_table(table.get_ref(), &schema, &schema, &Place::default());
        let first = std::mem::take(&mut self.unknown).into_iter().min_by_key(|problem| self.line_of(&problem.key));
        match first {
            Some(problem) => Err(self.locate(problem)),
            None => T::deserialize(Deserializer::from(table)).map_err(|error| self.toml_error(&error)),
        }
    }

    /// Leaves out the part in which the key of `error` stands; nothing when it stands in none.
    pub(super) fn leave_out(&mut self, error: &ConfigError) -> Option<Part> {
        let key = error.key.as_deref()?;
        if error.message.contains(OTHERS) {
            // Somebody may be trying something: nothing is done before an administrator has looked.
            return None;
        }
        let is_below = |place: &Place| {
            let rest = key.strip_prefix(place.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let table = DeTable::parse(self.text).ok()?;
        let top = Place::default();
        let app = match table.get_ref().get("app").map(Spanned::get_ref) {
            Some(DeValue::Table(apps)) => {
                apps.keys().map(|name| name.get_ref().to_string()).find(|name| is_below(&top.key("app").key(name)))
            }
            _ => None,
        };
        let mail = is_below(&top.key("daemon").key("mail")).then_some(Part::Mail);
        let part = app.map(Part::App).or(mail).filter(|part| !self.left_out.contains(part))?;
        self.left_out.push(part.clone());
        Some(part)
    }

    /// Every file with a secret that was named in what was [`read`](Self::read).
    pub(super) fn secrets(&mut self) -> Vec<Secret> {
        std::mem::take(&mut self.secrets)
    }

    /// Adds origin and line to a problem. A missing key is said to be missing where its table stands.
    pub(super) fn locate(&self, problem: Problem) -> ConfigError {
        ConfigError {
            origin: self.origin.to_owned(),
            line: self.line_of(&problem.key),
            key: Some(problem.key),
            message: problem.message,
            hint: problem.hint,
            source: problem.source,
        }
    }

    /// The line of a key, or of the nearest table above it.
    fn line_of(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some((_, entry)) = self.entries.iter().find(|(place, _)| place.as_str() == key) {
                return Some(self.line_at(entry.key.start));
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    /// The line of a byte, counted from 1.
    fn line_at(&self, byte: usize) -> usize {
        1 + self.text.as_bytes().iter().take(byte).filter(|byte| **byte == b'\n').count()
    }

    fn enter_table(&mut self, table: &DeTable<'_>, place: &Place) {
        for (key, value) in table {
            let place = place.key(key.get_ref());
            self.enter(place, key.span(), value.span(), value.get_ref());
        }
    }

    fn enter(&mut self, place: Place, key: Range<usize>, span: Range<usize>, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.enter_table(table, &place),
            DeValue::Array(array) => {
                for (index, element) in array.iter().enumerate() {
                    self.enter(place.index(index), element.span(), element.span(), element.get_ref());
                }
            }
            _ => {}
        }
        self.entries.insert(place, Entry { key, value: span });
    }

    fn check_table(&mut self, table: &DeTable<'_>, schema: &Schema, whole: &Schema, place: &Place) {
        for (key, value) in table {
            let key = key.get_ref();
            let place = place.key(key);
            match schema {
                Schema::Table(known) | Schema::Command(known) => match known.get(key.as_ref()) {
                    Some(schema) => {
                        if let (DeValue::String(path), true) = (value.get_ref(), names_a_secret(key)) {
                            self.secrets.push(Secret { key: place.as_str().to_owned(), path: path.as_ref().into() });
                        }
                        self.check(value.get_ref(), schema, whole, &place);
                    }
                    None => self.unknown.push(unknown(key, &place, known, whole)),
                },
                Schema::Map(schema) => self.check(value.get_ref(), schema, whole, &place),
                Schema::Value | Schema::List(_) => {}
            }
        }
    }

    fn check(&mut self, value: &DeValue<'_>, schema: &Schema, whole: &Schema, place: &Place) {
        match (value, schema) {
            (DeValue::Table(table), schema) => self.check_table(table, schema, whole, place),
            (DeValue::Array(array), Schema::List(schema)) => {
                for (index, element) in array.iter().enumerate() {
                    self.check(element.get_ref(), schema, whole, &place.index(index));
                }
            }
            // A wrong type is serde's to say.
            _ => {}
        }
    }

    fn toml_error(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span();
        let start = span.as_ref().map(|span| span.start);
        let key = start.and_then(|start| {
            let around =
                self.entries.iter().filter(|(_, entry)| entry.value.contains(&start) || entry.key.contains(&start));
            around.min_by_key(|(_, entry)| entry.value.len()).map(|(place, _)| place.as_str().to_owned())
        });
        let (message, hint) = in_words(error.message());
        ConfigError {
            origin: self.origin.to_owned(),
            line: start.map(|start| self.line_at(start)),
            key,
            message,
            hint,
            source: None,
        }
    }
}

/// What serde says, in the words of the file's author.
fn in_words(message: &str) -> (String, Option<String>) {
    const WORDS: [(&str, &str); 5] = [
        ("expected u32", "expected a whole number"),
        ("expected u64", "expected a whole number"),
        ("expected a sequence", "expected a list"),
        ("expected a boolean", "expected true or false"),
        ("unknown variant", "unknown value"),
    ];
    let mut words = message.trim().replace('\n', ", ");
    for (theirs, ours) in WORDS {
        words = words.replace(theirs, ours);
    }
    let number_for_text = words.contains("integer `") && words.contains("expected a string");
    let hint =
        number_for_text.then(|| "put it in quotes; a length of time has a unit: \"90s\", \"5m\", \"2d\"".to_owned());
    (words, hint)
}

/// A key that nobody understands, with the key that was probably meant.
fn unknown(key: &str, place: &Place, known: &BTreeMap<&'static str, Schema>, whole: &Schema) -> Problem {
    let nearest = known
        .keys()
        .map(|candidate| (strsim::damerau_levenshtein(key, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= key.len().max(candidate.len()).div_ceil(3))
        .min();
    let elsewhere = || {
        let mut places = Vec::new();
        find(whole, key, "", &mut places);
        places.into_iter().next()
    };
    let hint = match nearest {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => match elsewhere() {
            Some(place) => format!("did you mean `{place}`?"),
            None => format!("known here: {}", known.keys().copied().collect::<Vec<_>>().join(", ")),
        },
    };
    place.wrong("is not a key that Afterhours knows").hint(hint)
}

/// Every place in `schema` where `key` is known.
fn find(schema: &Schema, key: &str, place: &str, found: &mut Vec<String>) {
    let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    match schema {
        Schema::Value | Schema::Command(_) => {}
        Schema::Map(value) => find(value, key, &below("NAME"), found),
        Schema::List(element) => find(element, key, place, found),
        Schema::Table(table) => {
            for (name, schema) in table {
                if *name == key {
                    found.push(below(name));
                }
                find(schema, key, &below(name), found);
            }
        }
    }
}
