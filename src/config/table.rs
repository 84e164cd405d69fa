//! Declares a table of keys once, for parsing, defaults and description.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Range};

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use toml::Spanned;

use super::Place;

/// A key of the configuration, as the manual describes it.
#[derive(Debug)]
pub struct Key {
    /// Its table, such as `app.NAME.reload.check`.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its type, described in words.
    pub type_description: fn() -> String,
    /// Its default.
    pub default: DefaultValue,
    /// When a change takes effect.
    pub takes_effect: TakesEffect,
    /// Which kind of app it is for.
    pub apps: Apps,
    /// The key that the other kind of app has for the same purpose.
    pub instead: Option<&'static str>,
    /// Its purpose, in one sentence.
    pub sentence: &'static str,
}

/// The value of a key that is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// The key must be written.
    Required,
    /// No value; the text describes what that means.
    Absent(&'static str),
    /// This value, in TOML.
    Toml(&'static str),
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesEffect {
    /// At the next reload.
    Reload,
    /// When the master is started again.
    Restart,
}

/// Which kind of app a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apps {
    /// Every kind.
    Any,
    /// Those with `wsgi`.
    Wsgi,
    /// Those with `command`.
    Command,
}

impl Key {
    /// The table and the name, as `app.NAME.reload.surge`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }
}

impl fmt::Display for DefaultValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "none (required)",
            Self::Absent(text) | Self::Toml(text) => text,
        })
    }
}

impl fmt::Display for TakesEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reload => "at a reload",
            Self::Restart => "at a restart",
        })
    }
}

impl fmt::Display for Apps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any app",
            Self::Wsgi => "apps with `wsgi`",
            Self::Command => "apps with `command`",
        })
    }
}

/// The value of a key: as written, with its position in the file, or the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value<T> {
    value: T,
    place: Option<Range<usize>>,
}

impl<T> Value<T> {
    /// A value from the file.
    pub(super) fn written(spanned: Spanned<T>) -> Self {
        Self {
            place: Some(spanned.span()),
            value: spanned.into_inner(),
        }
    }

    /// A value without a position in the file.
    pub(super) fn without_place(value: T) -> Self {
        Self { value, place: None }
    }

    /// Its position; `None` if it is not written.
    pub fn place(&self) -> Option<Range<usize>> {
        self.place.clone()
    }

    /// Another value at the same position.
    pub(super) fn map<U>(self, other: impl FnOnce(T) -> U) -> Value<U> {
        Value {
            value: other(self.value),
            place: self.place,
        }
    }

    /// An error in this value.
    pub fn wrong(&self, message: impl Into<String>) -> Place {
        Place {
            span: self.place.clone(),
            message: message.into(),
        }
    }
}

impl<T: DeserializeOwned> Value<T> {
    /// The default value that `toml` denotes, without a position in the file.
    ///
    /// # Panics
    /// If it does not have the type of the key. A test parses every default.
    pub(super) fn default(toml: &str) -> Self {
        Self::without_place(default(toml))
    }
}

/// Parses a default value.
///
/// # Panics
/// If `toml` is not a value of this type.
pub(super) fn default<T: DeserializeOwned>(toml: &str) -> T {
    let value = toml::de::ValueDeserializer::parse(toml).and_then(T::deserialize);
    value.unwrap_or_else(|error| panic!("the default {toml}: {error}"))
}

impl<T> Deref for Value<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The position of a key, if it is written.
pub(super) trait Written {
    fn place(&self) -> Option<Range<usize>>;
}

impl<T> Written for Value<T> {
    fn place(&self) -> Option<Range<usize>> {
        self.place.clone()
    }
}

impl<T> Written for Option<Value<T>> {
    fn place(&self) -> Option<Range<usize>> {
        self.as_ref()?.place.clone()
    }
}

/// A table of keys, read key by key, so that tables can have keys in common and each error keeps its place.
pub(super) trait Table: Sized {
    /// What has been read.
    type Read: Default;

    /// The names of its keys.
    fn names() -> Vec<&'static str>;

    /// Reads the value of a key of the table.
    ///
    /// # Errors
    /// The value is wrong.
    fn take<'de, A: MapAccess<'de>>(
        read: &mut Self::Read,
        name: &str,
        map: &mut A,
    ) -> Result<(), A::Error>;

    /// The table.
    ///
    /// # Errors
    /// A key is missing.
    fn finish<E: Error>(read: Self::Read) -> Result<Self, E>;
}

/// Reads a table.
///
/// # Errors
/// It is none, or one of its keys is unknown, missing or wrong.
pub(super) fn read<'de, T: Table, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(Reader(PhantomData))
}

struct Reader<T>(PhantomData<T>);

impl<'de, T: Table> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let names = T::names();
        let mut read = T::Read::default();
        while let Some(name) = map.next_key_seed(Name(&names))? {
            T::take(&mut read, name, &mut map)?;
        }
        T::finish(read)
    }
}

/// A name that must be one of these.
struct Name<'a>(&'a [&'static str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the name of a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let known = self.0.iter().find(|name| **name == text);
        known.copied().ok_or_else(|| {
            // As serde says it.
            let known = self.0.join("`, `");
            E::custom(format!("unknown field `{text}`, expected one of `{known}`"))
        })
    }
}

/// Declares tables. Each row is a key:
///
/// ```text
/// /// One sentence.
/// field as "name": Type = DEFAULT, EFFECT, only KIND, else "key of the other kind";
/// ```
///
/// `as` is for names that Rust does not allow, `only` for keys of one kind of app. DEFAULT is a TOML value, `(none "what that
/// means")` or `(required)`. In the generated struct, a key with a default is a [`Value`], one without is an
/// `Option<Value>`.
///
/// A `group` is a table that stands in no file: other tables have its keys, with `with field: Group` behind their names.
macro_rules! tables {
    ($(
        $(#[doc = $about:literal])+
        $kind:ident $($path:literal)? $Table:ident $(with $group:ident: $Group:ident)? {
            $(
                $(#[doc = $doc:literal])+
                $field:ident $(as $name:literal)? : $type:ty = $default:tt, $effect:ident
                    $(, only $apps:ident)? $(, else $instead:literal)? ;
            )+
        }
    )+) => {
        /// Every key of every table.
        pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
            [$($($Table::keys($path),)?)+].into_iter().flatten().collect()
        });

        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $Table {
                $(
                    $(#[doc = $doc])+
                    pub $field: tables!(@field $default $type),
                )+
                $(
                    /// The keys of this group.
                    pub $group: $Group,
                )?
            }

            impl $Table {
                fn keys(table: &'static str) -> Vec<Key> {
                    #[allow(unused_mut, reason = "most tables have no group")]
                    let mut keys = vec![$(
                        Key {
                            table,
                            name: tables!(@name $field $($name)?),
                            type_description: <$type as Typed>::description,
                            default: tables!(@default $default),
                            takes_effect: TakesEffect::$effect,
                            apps: tables!(@apps $($apps)?),
                            instead: tables!(@instead $($instead)?),
                            sentence: concat!($($doc),+).trim_ascii(),
                        },
                    )+];
                    $(keys.extend($Group::keys(table));)?
                    keys
                }

                fn places(&self) -> Vec<(&'static str, Option<std::ops::Range<usize>>)> {
                    #[allow(unused_mut, reason = "most tables have no group")]
                    let mut places = vec![$((tables!(@name $field $($name)?), self.$field.place())),+];
                    $(places.extend(self.$group.places());)?
                    places
                }
            }

            $(
                impl $Table {
                    /// The keys that are written, with the positions of their values.
                    pub fn written(&self) -> impl Iterator<Item = (&'static Key, std::ops::Range<usize>)> {
                        let rows = KEYS.iter().filter(|key| key.table == $path);
                        rows.zip(self.places()).filter_map(|(key, (name, place))| {
                            debug_assert_eq!(key.name, name);
                            Some((key, place?))
                        })
                    }
                }
            )?

            impl Typed for $Table {
                fn description() -> String {
                    "table".into()
                }
            }

            const _: () = {
                #[derive(Default)]
                pub struct Read {
                    $($field: Option<Spanned<$type>>,)+
                    $($group: <$Group as Table>::Read,)?
                }

                impl Table for $Table {
                    type Read = Read;

                    fn names() -> Vec<&'static str> {
                        #[allow(unused_mut, reason = "most tables have no group")]
                        let mut names = vec![$(tables!(@name $field $($name)?)),+];
                        $(names.extend($Group::names());)?
                        names
                    }

                    fn take<'de, A: MapAccess<'de>>(
                        read: &mut Read,
                        name: &str,
                        map: &mut A,
                    ) -> Result<(), A::Error> {
                        match name {
                            $(tables!(@name $field $($name)?) => read.$field = Some(map.next_value()?),)+
                            _ => {
                                $($Group::take(&mut read.$group, name, map)?;)?
                            }
                        }
                        Ok(())
                    }

                    fn finish<E: Error>(read: Read) -> Result<Self, E> {
                        Ok(Self {
                            $($field: tables!(@value E, read.$field, $default, tables!(@name $field $($name)?)),)+
                            $($group: $Group::finish(read.$group)?,)?
                        })
                    }
                }
            };

            impl<'de> Deserialize<'de> for $Table {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    super::table::read(deserializer)
                }
            }
        )+
    };

    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };

    (@default (required)) => { DefaultValue::Required };
    (@default (none $text:literal)) => { DefaultValue::Absent($text) };
    (@default $toml:tt) => { DefaultValue::Toml(stringify!($toml)) };

    (@apps) => { Apps::Any };
    (@apps $apps:ident) => { Apps::$apps };

    (@instead) => { None };
    (@instead $key:literal) => { Some($key) };

    (@field (none $text:literal) $type:ty) => { Option<Value<$type>> };
    (@field $default:tt $type:ty) => { Value<$type> };

    (@value $E:ident, $written:expr, (required), $name:expr) => {
        Value::written($written.ok_or_else(|| $E::missing_field($name))?)
    };
    (@value $E:ident, $written:expr, (none $text:literal), $name:expr) => {
        $written.map(Value::written)
    };
    (@value $E:ident, $written:expr, $default:tt, $name:expr) => {
        $written.map_or_else(|| Value::default(stringify!($default)), Value::written)
    };
}

pub(super) use tables;
