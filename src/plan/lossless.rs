//! The JSON form of paths: a string, or an array of bytes if the path is not valid UTF-8. For `#[serde(with = "lossless")]`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::Address;

/// A value with a JSON form that keeps every path.
pub trait Lossless {
    /// The form.
    type Form: Serialize + DeserializeOwned;
    /// Encodes the value.
    fn form(&self) -> Self::Form;
    /// Decodes a value.
    fn from_form(form: Self::Form) -> Self;
}

pub fn serialize<T: Lossless, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    value.form().serialize(to)
}

pub fn deserialize<'de, T: Lossless, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::Form::deserialize(from).map(T::from_form)
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub enum PathForm {
    Text(String),
    Bytes(Vec<u8>),
}

impl Lossless for PathBuf {
    type Form = PathForm;

    fn form(&self) -> PathForm {
        match self.to_str() {
            Some(text) => PathForm::Text(text.to_owned()),
            None => PathForm::Bytes(self.as_os_str().as_bytes().to_owned()),
        }
    }

    fn from_form(form: PathForm) -> Self {
        match form {
            PathForm::Text(text) => text.into(),
            PathForm::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub enum AddressForm {
    Unix(PathForm),
    Other(Address),
}

impl Lossless for Address {
    type Form = AddressForm;

    fn form(&self) -> AddressForm {
        match self {
            Self::Unix(path) => AddressForm::Unix(path.form()),
            other => AddressForm::Other(other.clone()),
        }
    }

    fn from_form(form: AddressForm) -> Self {
        match form {
            AddressForm::Unix(path) => Self::Unix(PathBuf::from_form(path)),
            AddressForm::Other(address) => address,
        }
    }
}

impl<T: Lossless> Lossless for Option<T> {
    type Form = Option<T::Form>;

    fn form(&self) -> Self::Form {
        self.as_ref().map(T::form)
    }

    fn from_form(form: Self::Form) -> Self {
        form.map(T::from_form)
    }
}

/// Values with names.
impl<T: Lossless> Lossless for Vec<(String, T)> {
    type Form = Vec<(String, T::Form)>;

    fn form(&self) -> Self::Form {
        let named = self.iter();
        named
            .map(|(name, value)| (name.clone(), value.form()))
            .collect()
    }

    fn from_form(form: Self::Form) -> Self {
        let named = form.into_iter();
        named
            .map(|(name, value)| (name, T::from_form(value)))
            .collect()
    }
}
