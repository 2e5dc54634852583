//! From one schema to the next.
//!
//! | schema | an order is |
//! |---|---|
//! | 1 | free text: `"12 x bolts"` |
//! | 2 | quantity and item |
//! | 3 | numbered, with lines |
//! | 4 | with a state |
//!
//! A migration goes step by step and rewrites all orders each time. Dying in between leaves the data
//! of one schema or of the next, never a mixture.

use std::path::Path;

use serde_json::Value;
use serde_json::json;

use crate::sample::Order;
use crate::sample::data::read_orders;
use crate::sample::data::write_orders;
use crate::sample::error::SampleError;

/// What a migration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The schema before.
    pub from: u32,
    /// The schema now.
    pub to: u32,
    /// How many orders there are.
    pub orders: usize,
}

/// Brings the data to schema `to`.
///
/// # Errors
/// They are of a newer schema, or cannot be read or written.
pub fn migrate(data: &Path, to: u32) -> Result<Migrated, SampleError> {
    let stored = read_orders(data)?;
    if stored.schema > to {
        return Err(SampleError::Schema { found: stored.schema, known: to });
    }
    for schema in stored.schema..to {
        write_orders(data, schema + 1, &stored.orders)?;
    }
    Ok(Migrated { from: stored.schema, to, orders: stored.orders.len() })
}

/// An order in the form of a schema.
pub(crate) fn encode(schema: u32, number: usize, order: &Order) -> Value {
    let Order { reference, by, quantity, item } = order;
    let lines = json!([{ "item": item, "quantity": quantity }]);
    match schema {
        1 => json!({ "reference": reference, "by": by, "text": format!("{quantity} x {item}") }),
        2 => json!({ "reference": reference, "by": by, "quantity": quantity, "item": item }),
        3 => json!({ "number": number, "reference": reference, "entered_by": by, "lines": lines }),
        _ => json!({ "number": number, "reference": reference, "entered_by": by, "lines": lines, "state": "open" }),
    }
}

/// An order from the form of a schema.
pub(crate) fn decode(schema: u32, value: &Value) -> Option<Order> {
    let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
    let number = |value: &Value| u32::try_from(value.get("quantity")?.as_u64()?).ok();
    let reference = text(value, "reference")?;
    match schema {
        1 => {
            let (quantity, item) = value.get("text")?.as_str()?.split_once(" x ")?;
            Some(Order { reference, by: text(value, "by")?, quantity: quantity.parse().ok()?, item: item.to_owned() })
        }
        2 => Some(Order { reference, by: text(value, "by")?, quantity: number(value)?, item: text(value, "item")? }),
        3 | 4 => {
            let line = value.get("lines")?.get(0)?;
            let by = text(value, "entered_by")?;
            Some(Order { reference, by, quantity: number(line)?, item: text(line, "item")? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::data::Orders;
    use crate::sample::data::tests::order;

    fn desk_of_schema_1(orders: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut desk = Orders::open(dir.path(), 1).unwrap();
        (1..=orders).for_each(|number| desk.enter(order(number)).unwrap());
        dir
    }

    #[test]
    fn every_schema_holds_the_same_orders_in_other_bytes() {
        let dir = desk_of_schema_1(7);
        let mut texts = vec![fs_err::read_to_string(dir.path().join("orders.jsonl")).unwrap()];
        let before = Orders::open(dir.path(), 1).unwrap().all();
        for schema in 2..=4 {
            let migrated = migrate(dir.path(), schema).unwrap();
            assert_eq!(migrated, Migrated { from: schema - 1, to: schema, orders: 7 });
            assert_eq!(Orders::open(dir.path(), schema).unwrap().all(), before);
            texts.push(fs_err::read_to_string(dir.path().join("orders.jsonl")).unwrap());
        }
        texts.dedup();
        assert_eq!(texts.len(), 4);
        let second: Vec<&str> = texts.iter().map(|text| text.lines().nth(1).unwrap()).collect();
        insta::assert_snapshot!(second.join("\n"), @r#"
        {"by":"anna","reference":"anna-0001","text":"2 x bolts M8 x 20"}
        {"by":"anna","item":"bolts M8 x 20","quantity":2,"reference":"anna-0001"}
        {"entered_by":"anna","lines":[{"item":"bolts M8 x 20","quantity":2}],"number":1,"reference":"anna-0001"}
        {"entered_by":"anna","lines":[{"item":"bolts M8 x 20","quantity":2}],"number":1,"reference":"anna-0001","state":"open"}
        "#);
    }

    #[test]
    fn several_schemas_are_one_migration_and_twice_is_once() {
        let dir = desk_of_schema_1(3);
        assert_eq!(migrate(dir.path(), 3).unwrap(), Migrated { from: 1, to: 3, orders: 3 });
        let bytes = fs_err::read(dir.path().join("orders.jsonl")).unwrap();
        assert_eq!(migrate(dir.path(), 3).unwrap(), Migrated { from: 3, to: 3, orders: 3 });
        assert_eq!(fs_err::read(dir.path().join("orders.jsonl")).unwrap(), bytes);
    }

    #[test]
    fn there_is_no_way_back_and_no_way_on_from_what_cannot_be_read() {
        let dir = desk_of_schema_1(1);
        migrate(dir.path(), 2).unwrap();
        assert!(matches!(migrate(dir.path(), 1), Err(SampleError::Schema { found: 2, known: 1 })));
        let path = dir.path().join("orders.jsonl");
        fs_err::write(&path, "{\"schema\":2}\n{\"reference\":\"x\",\"text\":\"1 x y\"}\n").unwrap();
        let error = migrate(dir.path(), 3).unwrap_err();
        assert!(matches!(error, SampleError::Order { line: 2, schema: 2 }), "{error}");
    }
}
