//! `preforkd events`: what has happened, as the master remembers it.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::plain;
use crate::client;

/// Why nothing more is to come.
const ENDED: &str = "the master has ended, or does not answer any more (see its log)";

/// How the events are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// One JSON object a line.
    pub(super) json: bool,
    /// Go on with what happens from now on.
    pub(super) follow: bool,
}

/// Writes the events to `output`. With `follow` it ends when nobody reads that, or the master does not answer any more.
///
/// # Errors
/// The message for the user.
pub(super) fn show(
    connect: impl Fn() -> Result<UnixStream, String>,
    form: Form,
    output: &mut impl Write,
) -> Result<(), String> {
    let mut shown = Shown {
        form,
        output,
        last: 0,
    };
    let known = client::ask(connect()?, "events")?;
    if shown.write(known.lines())?.is_break() || !form.follow {
        return Ok(());
    }
    // A master disconnects a client that does not read; it can ask again.
    while let Ok(stream) = connect()
        && let Ok(lines) = client::follow(stream, &format!("follow {}", shown.last))
    {
        for line in lines.map_while(Result::ok) {
            if shown.write([&*line])?.is_break() {
                return Ok(());
            }
        }
    }
    Err(ENDED.to_owned())
}

/// Where events are shown.
struct Shown<'a, W> {
    form: Form,
    output: &'a mut W,
    /// The number of the last one.
    last: u64,
}

impl<W: Write> Shown<'_, W> {
    /// Writes these; it breaks when nobody reads them.
    fn write<'a>(
        &mut self,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Result<ControlFlow<()>, String> {
        let mut text = String::new();
        for line in lines {
            let event: Value = serde_json::from_str(line).map_err(|error| {
                format!("an event is not valid JSON: {error} (is the master another version of preforkd?)")
            })?;
            self.last = event["number"].as_u64().unwrap_or(self.last);
            text += &if self.form.json {
                line.to_owned()
            } else {
                shown(&event)
            };
            text.push('\n');
        }
        let written = self.output.write_all(text.as_bytes());
        match written.and_then(|()| self.output.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(format!("cannot write to standard output: {error}")),
            Ok(()) => Ok(ControlFlow::Continue(())),
        }
    }
}

/// As in the log, without characters that a terminal would obey.
fn shown(event: &Value) -> String {
    let of = |key: &str| event[key].as_str().unwrap_or("-");
    let line = format!("{} {:5} {}", of("time"), of("level"), of("text"));
    plain(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A master that gives these answers, one for each connection, and then is gone; and what it is asked.
    fn answered(form: Form, answers: &[&str]) -> (Result<(), String>, String) {
        use std::cell::RefCell;
        use std::io::{BufRead, BufReader};
        let asked = RefCell::new(Vec::new());
        let connect = || {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let number = asked.borrow().len();
            let answer = answers.get(number).ok_or("no master")?;
            (&theirs).write_all(answer.as_bytes()).expect("room");
            asked
                .borrow_mut()
                .push(theirs.try_clone().expect("a descriptor"));
            theirs.shutdown(std::net::Shutdown::Write).expect("open");
            Ok(ours)
        };
        let mut output = Vec::new();
        let result = show(connect, form, &mut output);
        let mut text = String::from_utf8(output).expect("UTF-8");
        for stream in asked.into_inner() {
            let mut line = String::new();
            BufReader::new(stream)
                .read_line(&mut line)
                .expect("a request");
            text += &line;
        }
        (result, text)
    }

    const ONE: &str =
        "ok\n{\"number\":7,\"time\":\"T\",\"level\":\"WARN\",\"text\":\"a \\u001bb\"}\n";

    #[test]
    fn events_look_as_in_the_log_or_stay_as_they_are() {
        let (follow, json) = (false, false);
        let (result, text) = answered(Form { json, follow }, &[ONE]);
        assert_eq!((result, &*text), (Ok(()), "T WARN  a b\nevents\n"));
        let (_, text) = answered(Form { json: true, follow }, &[ONE]);
        assert!(text.starts_with("{\"number\":7"), "{text}");
        let (result, _) = answered(Form { json, follow }, &["error no\n"]);
        assert_eq!(result, Err("no".into()));
    }

    #[test]
    fn who_follows_asks_for_what_comes_after_the_last_one() {
        let form = Form {
            json: false,
            follow: true,
        };
        let (result, text) = answered(form, &[ONE, ONE]);
        assert_eq!(result, Err(ENDED.into()));
        assert_eq!(text, "T WARN  a b\nT WARN  a b\nevents\nfollow 7\n");
    }
}
