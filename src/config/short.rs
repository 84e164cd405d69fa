//! Values that are a table, or one string in short.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, Unexpected, Visitor,
};

/// A table that may be written as one string.
pub(super) trait Short: Sized {
    /// What may stand there, for an error.
    const EXPECTED: &'static str;
    /// The table.
    type Table: DeserializeOwned;

    /// The value of a string.
    ///
    /// # Errors
    /// The string has no meaning here.
    fn from_text(text: &str) -> Result<Self, String>;

    /// The value of a boolean, if that means something.
    fn from_bool(_value: bool) -> Option<Self> {
        None
    }

    /// The value of a table.
    fn from_table(table: Self::Table) -> Self;

    /// What to say of a number, if that is more than that it is none of the two forms.
    fn about_number(_number: i64) -> Option<String> {
        None
    }

    /// Reads one of the two forms.
    ///
    /// # Errors
    /// It is neither, or the form is wrong.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either(PhantomData))
    }
}

struct Either<T>(PhantomData<T>);

impl<'de, T: Short> Visitor<'de> for Either<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        let found = T::from_bool(value);
        found.ok_or_else(|| E::invalid_type(Unexpected::Bool(value), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Err(match T::about_number(number) {
            Some(why) => E::custom(why),
            None => E::invalid_type(Unexpected::Signed(number), &self),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::Table::deserialize(MapAccessDeserializer::new(map)).map(T::from_table)
    }
}
