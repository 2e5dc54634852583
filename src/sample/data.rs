//! Orders and people on disk.
//!
//! `orders.jsonl` begins with `{"schema": N}`; each further line is one order in the form of that
//! schema. It only grows, and a line counts when it ends with a line break: half a line is what a
//! crash left of an order that nobody was told is entered, and it is cut off.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use fs_err as fs;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use sha2::Digest;
use sha2::Sha256;

use crate::domain::hex::hex;
use crate::sample::Order;
use crate::sample::error::SampleError;
use crate::sample::migrate::decode;
use crate::sample::migrate::encode;

const ORDERS: &str = "orders.jsonl";
const PEOPLE: &str = "people.json";
/// Slows guessing down a little. A real application takes a password hash made for it.
const HASH_ROUNDS: u32 = 10_000;

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    schema: u32,
}

/// The orders of one data directory, held open by one server.
#[derive(Debug)]
pub struct Orders {
    path: PathBuf,
    file: fs::File,
    schema: u32,
    by_reference: BTreeMap<String, Order>,
}

impl Orders {
    /// Opens the orders in `data`, or begins them, in `schema`.
    ///
    /// # Errors
    /// They are of another schema, cannot be read, or cannot be begun.
    pub fn open(data: &Path, schema: u32) -> Result<Self, SampleError> {
        let path = data.join(ORDERS);
        if !path.exists() {
            write_orders(data, schema, &[])?;
        }
        let stored = read_orders(data)?;
        if stored.schema != schema {
            return Err(SampleError::Schema { found: stored.schema, known: schema });
        }
        let file = fs::OpenOptions::new().append(true).open(&path).map_err(SampleError::file("open", &path))?;
        if file.metadata().map_err(SampleError::file("read", &path))?.len() > stored.whole_bytes {
            file.set_len(stored.whole_bytes).map_err(SampleError::file("mend", &path))?;
        }
        let by_reference = stored.orders.into_iter().map(|order| (order.reference.clone(), order)).collect();
        Ok(Self { path, file, schema, by_reference })
    }

    /// Enters an order; it is on the disk when this returns. The same one again is entered already.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn enter(&mut self, order: Order) -> Result<(), SampleError> {
        if self.by_reference.contains_key(&order.reference) {
            return Ok(());
        }
        let line = line_of(self.schema, self.by_reference.len() + 1, &order);
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(SampleError::file("write", &self.path))?;
        self.by_reference.insert(order.reference.clone(), order);
        Ok(())
    }

    /// All orders.
    pub fn all(&self) -> Vec<Order> {
        self.by_reference.values().cloned().collect()
    }
}

/// What is on the disk.
pub(crate) struct Stored {
    pub(crate) schema: u32,
    pub(crate) orders: Vec<Order>,
    /// How many bytes end with a line break.
    whole_bytes: u64,
}

/// Reads the orders in `data`, whatever their schema.
pub(crate) fn read_orders(data: &Path) -> Result<Stored, SampleError> {
    let path = data.join(ORDERS);
    let text = fs::read_to_string(&path).map_err(SampleError::file("read", &path))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let mut lines = whole.lines();
    let head: Head = serde_json::from_str(lines.next().unwrap_or_default())
        .map_err(SampleError::text::<serde_json::Error>(&path))?;
    let order = |(at, line): (usize, &str)| {
        let value: Value = serde_json::from_str(line).map_err(SampleError::text(&path))?;
        decode(head.schema, &value).ok_or(SampleError::Order { line: at + 2, schema: head.schema })
    };
    let orders = lines.enumerate().map(order).collect::<Result<_, _>>()?;
    Ok(Stored { schema: head.schema, orders, whole_bytes: whole.len() as u64 })
}

/// Writes all orders anew; under their name there are the old ones or the new ones.
pub(crate) fn write_orders(data: &Path, schema: u32, orders: &[Order]) -> Result<(), SampleError> {
    let mut text = serde_json::json!(Head { schema }).to_string();
    text.push('\n');
    for (number, order) in (1..).zip(orders) {
        text.push_str(&line_of(schema, number, order));
    }
    write_whole(&data.join(ORDERS), text.as_bytes())
}

fn line_of(schema: u32, number: usize, order: &Order) -> String {
    let mut line = encode(schema, number, order).to_string();
    line.push('\n');
    line
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), SampleError> {
    let draft = path.with_extension("draft");
    let write = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let mut file = fs::File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        fs::File::open(dir)?.sync_all()
    };
    write().map_err(SampleError::file("write", path))
}

/// Somebody who may log in.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Person {
    salt: String,
    hash: String,
}

/// Everybody who may log in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct People(BTreeMap<String, Person>);

impl People {
    /// Those in `data`.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn load(data: &Path) -> Result<Self, SampleError> {
        let path = data.join(PEOPLE);
        let text = fs::read_to_string(&path).map_err(SampleError::file("read", &path))?;
        serde_json::from_str(&text).map_err(SampleError::text(&path))
    }

    /// Writes them to `data`.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn save(&self, data: &Path) -> Result<(), SampleError> {
        let path = data.join(PEOPLE);
        let text = serde_json::to_vec_pretty(self).map_err(SampleError::text(&path))?;
        write_whole(&path, &text)
    }

    /// Lets somebody log in with this password.
    pub fn add(&mut self, name: &str, password: &str) {
        let salt = uuid::Uuid::now_v7().to_string();
        let hash = hash(&salt, password);
        self.0.insert(name.to_owned(), Person { salt, hash });
    }

    /// Whether this is the password of that person.
    pub fn admits(&self, name: &str, password: &str) -> bool {
        self.0.get(name).is_some_and(|person| hash(&person.salt, password) == person.hash)
    }
}

fn hash(salt: &str, password: &str) -> String {
    let mut digest = Sha256::digest(format!("{salt}:{password}"));
    for _ in 0..HASH_ROUNDS {
        digest = Sha256::new().chain_update(salt).chain_update(digest).finalize();
    }
    hex(digest)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn order(number: u32) -> Order {
        let reference = format!("anna-{number:04}");
        Order { reference, by: "anna".to_owned(), quantity: number + 1, item: "bolts M8 x 20".to_owned() }
    }

    #[test]
    fn what_is_entered_is_there_and_half_a_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut orders = Orders::open(dir.path(), 2).unwrap();
        orders.enter(order(1)).unwrap();
        orders.enter(order(2)).unwrap();
        orders.enter(order(2)).unwrap();
        drop(orders);
        let path = dir.path().join(ORDERS);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"reference\": \"an"].concat()).unwrap();
        assert_eq!(Orders::open(dir.path(), 2).unwrap().all(), [order(1), order(2)]);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn data_of_another_schema_are_refused_in_both_directions() {
        let dir = tempfile::tempdir().unwrap();
        Orders::open(dir.path(), 2).unwrap();
        for known in [1, 3] {
            let error = Orders::open(dir.path(), known).unwrap_err();
            assert!(matches!(error, SampleError::Schema { found: 2, known: k } if k == known), "{error}");
        }
    }

    #[test]
    fn only_the_right_password_logs_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut people = People::default();
        people.add("anna", "sesame");
        people.save(dir.path()).unwrap();
        let people = People::load(dir.path()).unwrap();
        assert!(people.admits("anna", "sesame"));
        assert!(!people.admits("anna", "Sesame") && !people.admits("ben", "sesame"));
        assert!(!fs::read_to_string(dir.path().join(PEOPLE)).unwrap().contains("sesame"));
    }
}
