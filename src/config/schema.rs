//! Which keys are understood at which place, learnt from the types of [`super::input`].
//!
//! A [`Schema`] is found by deserialising a type from nothing: a deserializer that answers every
//! question with a placeholder and writes down the field names it is asked for. The types stay
//! the only list of keys; the spelling check and the test of the documentation read it here.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::IntoDeserializer;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde::de::value::StrDeserializer;
use serde::forward_to_deserialize_any;

use crate::config::input::COMMAND;

/// A text that every type of the input takes: a string, and a length of time.
const PLACEHOLDER: &str = "1s";

/// What may stand at one place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Schema {
    /// A single value; nothing below it has a name.
    #[default]
    Value,
    /// A table with these keys.
    Table(BTreeMap<&'static str, Schema>),
    /// A table with keys that the administrator chooses.
    Map(Box<Schema>),
    /// A list.
    List(Box<Schema>),
    /// A command: a list, or a table with these keys.
    Command(BTreeMap<&'static str, Schema>),
}

impl Schema {
    /// The schema of `T`; a plain value where the type cannot be made from placeholders.
    pub(super) fn of<'de, T: Deserialize<'de>>() -> Self {
        let mut schema = Self::default();
        // The outcome does not matter: what was asked for has been written down by then. A test
        // holds that every type of the input can be made.
        let _ = T::deserialize(Asker(&mut schema));
        schema
    }
}

/// A deserializer that writes down what it is asked for.
struct Asker<'s>(&'s mut Schema);

impl<'de> Deserializer<'de> for Asker<'_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_str(PLACEHOLDER)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_bool(true)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_u32(1)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_u64(1)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let mut element = Schema::default();
        let made = visitor.visit_seq(Once(Some(&mut element)));
        *self.0 = Schema::List(Box::new(element));
        made
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let mut value = Schema::default();
        let made = visitor.visit_map(Fields { rest: &[PLACEHOLDER], key: "", seen: &mut |_, schema| value = schema });
        *self.0 = Schema::Map(Box::new(value));
        made
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let mut table = BTreeMap::new();
        let seen = &mut |key, schema| {
            table.insert(key, schema);
        };
        let made = visitor.visit_map(Fields { rest: fields, key: "", seen });
        *self.0 = if name == COMMAND { Schema::Command(table) } else { Schema::Table(table) };
        made
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        // Written as a word, or as a table with the word as its only key.
        *self.0 = Schema::Table(variants.iter().map(|variant| (*variant, Schema::Value)).collect());
        let first: StrDeserializer<'_, Refused> = variants.first().copied().unwrap_or_default().into_deserializer();
        visitor.visit_enum(first)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct tuple tuple_struct identifier ignored_any
    }
}

/// A map with the given keys, telling the schema of each value.
struct Fields<'s> {
    rest: &'static [&'static str],
    key: &'static str,
    seen: &'s mut dyn FnMut(&'static str, Schema),
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let Some((first, rest)) = self.rest.split_first() else { return Ok(None) };
        (self.key, self.rest) = (first, rest);
        let key: StrDeserializer<'_, Refused> = self.key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refused> {
        let mut schema = Schema::default();
        let made = seed.deserialize(Asker(&mut schema));
        (self.seen)(self.key, schema);
        made
    }
}

/// A list of one element.
struct Once<'s>(Option<&'s mut Schema>);

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        self.0.take().map(|schema| seed.deserialize(Asker(schema))).transpose()
    }
}

/// A type did not take the placeholder.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::input::Input;

    #[test]
    fn every_type_of_the_input_takes_the_placeholder() {
        let mut schema = Schema::default();
        Input::deserialize(Asker(&mut schema)).unwrap();
    }

    #[test]
    fn knows_keys_at_every_depth() {
        let Schema::Table(top) = Schema::of::<Input>() else { panic!("a table") };
        assert_eq!(top.keys().collect::<Vec<_>>(), [&"app", &"daemon"]);
        let Schema::Map(app) = &top["app"] else { panic!("a map") };
        let Schema::Table(app) = &**app else { panic!("a table") };
        let Schema::List(session) = &app["sessions"] else { panic!("a list") };
        let Schema::Table(session) = &**session else { panic!("a table") };
        let Schema::Command(end) = &session["end"] else { panic!("a command") };
        assert_eq!(end.keys().collect::<Vec<_>>(), [&"argv", &"as", &"env"]);
        let Schema::Table(open_gate) = &app["open_gate"] else { panic!("a table") };
        assert!(open_gate.contains_key("by_hand"));
    }
}
