//! The form of a line of the access log: `access_format` in preforkd.toml(5).
//!
//! The master checks it, and a worker compiles it, from the same text.

use std::fmt;

/// What a line can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The address of the client.
    Client,
    /// The user in `Authorization: Basic`, whether or not it was checked.
    User,
    /// When the response ended, as in the combined format.
    Time,
    /// The same as in RFC 3339, with milliseconds.
    TimeIso,
    /// The request line.
    Request,
    /// The method.
    Method,
    /// The path as it was sent.
    Path,
    /// The query as it was sent.
    Query,
    /// The protocol and its version.
    Protocol,
    /// The host that the client asked for.
    Host,
    /// The status of the response.
    Status,
    /// The bytes of its body.
    Bytes,
    /// The request field `Referer`.
    Referer,
    /// The request field `User-Agent`.
    Agent,
    /// Seconds from when the request had come whole to the end of the response.
    TimeTaken,
    /// Those of them for which it waited for a thread.
    TimeWaited,
    /// The name of the exchange.
    RequestId,
    /// The name of the app.
    App,
    /// The slot of the worker.
    Worker,
    /// The generation of the worker.
    Generation,
    /// The process ID of the worker.
    Pid,
}

/// The fields by their names.
pub const FIELDS: [(&str, Field); 21] = [
    ("client", Field::Client),
    ("user", Field::User),
    ("time", Field::Time),
    ("time_iso", Field::TimeIso),
    ("request", Field::Request),
    ("method", Field::Method),
    ("path", Field::Path),
    ("query", Field::Query),
    ("protocol", Field::Protocol),
    ("host", Field::Host),
    ("status", Field::Status),
    ("bytes", Field::Bytes),
    ("referer", Field::Referer),
    ("agent", Field::Agent),
    ("time_taken", Field::TimeTaken),
    ("time_waited", Field::TimeWaited),
    ("request_id", Field::RequestId),
    ("app", Field::App),
    ("worker", Field::Worker),
    ("generation", Field::Generation),
    ("pid", Field::Pid),
];

/// The names in the JSON form, and what they tell.
const JSON: [(&str, Field); 19] = [
    ("time", Field::TimeIso),
    ("client", Field::Client),
    ("user", Field::User),
    ("request", Field::Request),
    ("method", Field::Method),
    ("host", Field::Host),
    ("path", Field::Path),
    ("protocol", Field::Protocol),
    ("status", Field::Status),
    ("bytes", Field::Bytes),
    ("referer", Field::Referer),
    ("agent", Field::Agent),
    ("time_taken", Field::TimeTaken),
    ("time_waited", Field::TimeWaited),
    ("request_id", Field::RequestId),
    ("app", Field::App),
    ("worker", Field::Worker),
    ("generation", Field::Generation),
    ("pid", Field::Pid),
];

/// What `"combined"` stands for.
const COMBINED: &str = "{client} - {user} [{time}] \"{request}\" {status} {bytes} \"{referer}\" \"{agent}\" {time_taken}";

/// The most bytes of a format. A line has to fit into one write of a pipe (pipe(7), PIPE_BUF) with all fields.
const MAX_LENGTH: usize = 1024;
/// The most fields of a format, for the same reason.
const MAX_FIELDS: usize = 40;

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This text.
    Text(String),
    /// The value of a field.
    Field(Field),
}

/// The form of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Its parts, in order.
    pub pieces: Vec<Piece>,
    /// How values are written.
    pub style: Style,
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As in the combined format, times in milliseconds.
    Combined,
    /// As there, times in microseconds.
    Text,
    /// As values of JSON.
    Json,
}

/// What is wrong with a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatError {
    /// There is no such field.
    Unknown(String),
    /// A brace is missing, or should be doubled.
    Brace,
    /// A control character, such as a line end.
    Control,
    /// No field at all.
    NoField,
    /// Too many bytes or fields.
    TooLong,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "unknown field {{{name}}}"),
            Self::Brace => f.write_str(
                "a brace without its counterpart (write {{ for a brace that stands for itself, and }} likewise)",
            ),
            Self::Control => f.write_str("it contains a control character (leave it out)"),
            Self::NoField => f.write_str(
                "it has no field (write \"combined\", \"json\", or for example \"{client} {status} {time_taken}\")",
            ),
            Self::TooLong => write!(
                f,
                "it is too long (write at most {MAX_LENGTH} bytes and {MAX_FIELDS} fields)"
            ),
        }
    }
}

impl std::error::Error for FormatError {}

impl Format {
    /// Parses `"combined"`, `"json"`, or a text with names of fields in braces.
    ///
    /// # Errors
    /// The first one.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        match text {
            "combined" => Ok(Self {
                pieces: pieces(COMBINED)?,
                style: Style::Combined,
            }),
            "json" => Ok(Self::json()),
            _ => Ok(Self {
                pieces: pieces(text)?,
                style: Style::Text,
            }),
        }
    }

    fn json() -> Self {
        let mut pieces = Vec::new();
        for (name, field) in JSON {
            let before = if pieces.is_empty() { "{" } else { "," };
            pieces.push(Piece::Text(format!("{before}\"{name}\":")));
            pieces.push(Piece::Field(field));
        }
        pieces.push(Piece::Text("}".into()));
        Self {
            pieces,
            style: Style::Json,
        }
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, FormatError> {
    if text.chars().any(char::is_control) {
        return Err(FormatError::Control);
    }
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        literal.push_str(before);
        if from.starts_with("{{") || from.starts_with("}}") {
            literal.push_str(&from[..1]);
            rest = &from[2..];
            continue;
        }
        let inside = from.strip_prefix('{').ok_or(FormatError::Brace)?;
        let (name, after) = inside.split_once('}').ok_or(FormatError::Brace)?;
        let field = FIELDS.iter().find(|known| known.0 == name);
        let (_, field) = field.ok_or_else(|| match name.contains('{') {
            true => FormatError::Brace,
            false => FormatError::Unknown(name.to_owned()),
        })?;
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Field(*field));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal));
    }
    let is_field = |piece: &&Piece| matches!(piece, Piece::Field(_));
    match pieces.iter().filter(is_field).count() {
        0 => Err(FormatError::NoField),
        fields if fields > MAX_FIELDS || text.len() > MAX_LENGTH => Err(FormatError::TooLong),
        _ => Ok(pieces),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    #[test]
    fn a_format_is_text_and_fields() {
        for (written, expected) in [
            ("{status}", vec![Piece::Field(Field::Status)]),
            (
                "<{client}>{{{status}}} ä",
                vec![
                    text("<"),
                    Piece::Field(Field::Client),
                    text(">{"),
                    Piece::Field(Field::Status),
                    text("} ä"),
                ],
            ),
        ] {
            let format = Format::parse(written).expect(written);
            assert_eq!((format.pieces, format.style), (expected, Style::Text));
        }
    }

    #[test]
    fn what_is_wrong_with_a_format() {
        for (written, expected) in [
            ("{statsu}", FormatError::Unknown("statsu".into())),
            ("{}", FormatError::Unknown(String::new())),
            ("{status", FormatError::Brace),
            ("status}", FormatError::Brace),
            ("{{status}", FormatError::Brace),
            ("{status {client}", FormatError::Brace),
            ("{status}\n", FormatError::Control),
            ("%(h)s %(s)s", FormatError::NoField),
            ("", FormatError::NoField),
            (&"{status}".repeat(41), FormatError::TooLong),
            (
                &format!("{{status}}{}", "x".repeat(1020)),
                FormatError::TooLong,
            ),
        ] {
            assert_eq!(Format::parse(written), Err(expected), "{written}");
        }
    }

    #[test]
    fn the_names_have_forms_of_their_own() {
        let combined = Format::parse("combined").expect("a name");
        assert_eq!(combined.style, Style::Combined);
        assert_eq!(combined.pieces[0], Piece::Field(Field::Client));
        let json = Format::parse("json").expect("a name");
        assert_eq!(json.pieces[0], text("{\"time\":"));
        assert_eq!(json.pieces.last(), Some(&text("}")));
    }

    #[test]
    fn every_field_has_a_name() {
        for (name, field) in JSON {
            assert!(FIELDS.iter().any(|known| known.1 == field), "{name}");
        }
    }
}
