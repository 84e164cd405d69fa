//! `redirect` and `answer`: what answers requests of a site without asking anybody.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::keys::{Answer, ForwardAuth, Redirect, Route, Site};
use super::value::{Number, Typed};

/// A location, or a table with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirected(pub Redirect);

/// A status, or a table with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered(pub Answer);

struct RedirectedVisitor;

impl<'de> Visitor<'de> for RedirectedVisitor {
    type Value = Redirected;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("\"https\", a location, or a table with `to`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Redirected, E> {
        Ok(Redirected(Redirect::to(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Redirected, A::Error> {
        Redirect::deserialize(MapAccessDeserializer::new(map)).map(Redirected)
    }
}

impl<'de> Deserialize<'de> for Redirected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RedirectedVisitor)
    }
}

struct AnsweredVisitor;

impl<'de> Visitor<'de> for AnsweredVisitor {
    type Value = Answered;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a status, or a table with `status`")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Answered, E> {
        Number::read(number).map(|status| Answered(Answer::with(status)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Answered, A::Error> {
        Answer::deserialize(MapAccessDeserializer::new(map)).map(Answered)
    }
}

impl<'de> Deserialize<'de> for Answered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnsweredVisitor)
    }
}

impl Typed for Redirected {
    fn description() -> String {
        "\"https\", location or table".into()
    }
}

impl Typed for Answered {
    fn description() -> String {
        format!("{} or table", Number::<200, 599>::description())
    }
}

impl Site {
    /// Who is asked for the site and its routes whether requests may pass.
    pub fn asked(&self) -> impl Iterator<Item = &ForwardAuth> {
        let routes = self.routes.iter().map(|route| &route.get_ref().layers);
        let all = [&self.layers].into_iter().chain(routes);
        all.filter_map(|layers| layers.forward_auth.as_ref()?.0.as_ref())
    }
}

impl Route {
    /// The keys that say what answers, with whether they are written.
    pub fn targets(&self) -> [(&'static str, bool); 5] {
        [
            ("app", self.app.is_some()),
            ("to", self.to.is_some()),
            ("folder", self.folder.is_some()),
            ("redirect", self.redirect.is_some()),
            ("answer", self.answer.is_some()),
        ]
    }
}
