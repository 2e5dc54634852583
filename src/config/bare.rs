//! A configuration without what others must not see: variables, what stands behind the program of a command, and users and
//! passwords in addresses.

use toml::Table;
use toml::Value;

use crate::config::input::Input;
use crate::config::schema::Schema;

/// Puts `hidden` in the place of every secret that can stand in the text itself. Files that it names are left.
pub(super) fn hide(table: &mut Table, hidden: &str) {
    hide_table(table, &Schema::of::<Input>(), hidden);
}

fn hide_table(table: &mut Table, schema: &Schema, hidden: &str) {
    for (key, value) in table {
        match schema {
            Schema::Map(below) if **below == Schema::Value => hide_all(value, hidden),
            Schema::Map(below) => hide_value(value, below, hidden),
            Schema::Table(known) => hide_value(value, known.get(key.as_str()).unwrap_or(&Schema::Value), hidden),
            Schema::Command(_) if key == "argv" => hide_arguments(value, hidden),
            Schema::Command(_) if key == "env" => hide_all(value, hidden),
            Schema::Command(_) | Schema::Value | Schema::List(_) => {}
        }
    }
}

fn hide_value(value: &mut Value, schema: &Schema, hidden: &str) {
    match (value, schema) {
        (Value::Table(table), schema) => hide_table(table, schema, hidden),
        (argv @ Value::Array(_), Schema::Command(_)) => hide_arguments(argv, hidden),
        (Value::Array(all), Schema::List(element)) => {
            all.iter_mut().for_each(|value| hide_value(value, element, hidden))
        }
        (Value::String(text), _) => {
            if let Some(bare) = without_login(text) {
                *text = bare;
            }
        }
        _ => {}
    }
}

/// Which program it is must be known; what it is told may be a password.
fn hide_arguments(value: &mut Value, hidden: &str) {
    if let Value::Array(argv) = value {
        argv.iter_mut().skip(1).for_each(|argument| hide_all(argument, hidden));
    }
}

fn hide_all(value: &mut Value, hidden: &str) {
    match value {
        Value::String(text) => hidden.clone_into(text),
        Value::Array(all) => all.iter_mut().for_each(|value| hide_all(value, hidden)),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| hide_all(value, hidden)),
        _ => {}
    }
}

/// An address without user and password; nothing where it has none.
fn without_login(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (_, host) = authority.rsplit_once('@')?;
    Some(format!("{scheme}://{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_hidden_and_the_rest_stays() {
        let text = r#"
            [app.orders]
            install_dir = "/opt/orders"
            keep = ["etc/*"]
            env = { DB = "hunter2" }
            service = { start = ["ctl", "--password=hunter2"], stop = { argv = ["ctl", "hunter2"], as = "root", env = { PW = "hunter2" } }, status = ["ctl"] }
            backup = { evidence = { restic = "rest:https://anna:hunter2@backup.example.com/orders", env = { KEY = "hunter2" } } }
            sessions = [{ list = ["list", "hunter2"] }]
            "#;
        let mut table: Table = toml::from_str(text).unwrap();
        hide(&mut table, "hidden");
        let bare = toml::to_string(&table).unwrap();
        assert!(!bare.contains("hunter2"), "{bare}");
        let orders = &table["app"]["orders"];
        assert_eq!((orders["install_dir"].as_str(), orders["keep"][0].as_str()), (Some("/opt/orders"), Some("etc/*")));
        let stop = &orders["service"]["stop"];
        assert_eq!((stop["argv"][0].as_str(), stop["as"].as_str()), (Some("ctl"), Some("root")));
        assert_eq!(orders["env"]["DB"].as_str(), Some("hidden"));
        assert_eq!(orders["backup"]["evidence"]["restic"].as_str(), Some("rest:https://backup.example.com/orders"));
    }

    /// Wherever a command or a variable may stand.
    #[test]
    fn every_list_of_the_reference_that_is_a_command_is_known_as_one() {
        fn commands(schema: &Schema) -> usize {
            match schema {
                Schema::Command(_) => 1,
                Schema::Table(known) => known.values().map(commands).sum(),
                Schema::Map(below) | Schema::List(below) => commands(below),
                Schema::Value => 0,
            }
        }
        assert!(commands(&Schema::of::<Input>()) >= 15);
    }
}
