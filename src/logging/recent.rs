//! The last lines of the log, which the master keeps in memory for `preforkd events`: they are there whatever has become of its standard error.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use log::Level;
use serde::Serialize;

/// How many are kept.
const KEPT: usize = 1000;
/// A longer line is cut to so many bytes.
const MOST: usize = 4096;

/// Something that has happened, as a line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Its number, from 1 on.
    pub number: u64,
    /// When, as in the log.
    pub time: String,
    /// How bad it is.
    pub level: &'static str,
    /// Its app.
    pub app: Option<String>,
    /// The slot of its worker.
    pub worker: Option<u64>,
    /// The generation of that.
    pub generation: Option<u64>,
    /// Its process.
    pub pid: Option<u64>,
    /// The line.
    pub text: String,
}

/// The last events.
struct Recent {
    events: VecDeque<Event>,
    last: u64,
}

static RECENT: Mutex<Recent> = Mutex::new(Recent {
    events: VecDeque::new(),
    last: 0,
});

/// Notes a line.
pub(super) fn note(level: Level, text: &str) {
    if level <= Level::Info {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        with(|recent| recent.add(time, level, text));
    }
}

/// The events after that of this number, as far as they are kept; all of them if there is none of this number yet.
pub fn after(number: u64) -> Vec<Event> {
    with(|recent| recent.after(number))
}

/// The number of the last event.
pub fn last() -> u64 {
    with(|recent| recent.last)
}

/// Nothing panics in between; so what is there is whole.
fn with<T>(what: impl FnOnce(&mut Recent) -> T) -> T {
    what(&mut RECENT.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Recent {
    fn add(&mut self, time: String, level: Level, text: &str) {
        self.last += 1;
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        let event = Event::new(self.last, time, level, text);
        self.events.push_back(event);
    }

    fn after(&self, number: u64) -> Vec<Event> {
        let number = if number > self.last { 0 } else { number };
        let events = self.events.iter();
        events
            .filter(|event| event.number > number)
            .cloned()
            .collect()
    }
}

impl Event {
    fn new(number: u64, time: String, level: Level, text: &str) -> Self {
        let mut event = Self {
            number,
            time,
            level: level.as_str(),
            app: None,
            worker: None,
            generation: None,
            pid: None,
            text: cut(text).to_owned(),
        };
        // What it is about stands in front of the first colon.
        for word in text.split(' ') {
            let ends = word.ends_with(':');
            let (key, value) = word
                .trim_end_matches(':')
                .split_once('=')
                .unwrap_or_default();
            match key {
                "app" => event.app = Some(value.to_owned()),
                "worker" => event.worker = value.parse().ok(),
                "gen" => event.generation = value.parse().ok(),
                "pid" => event.pid = value.parse().ok(),
                _ => {}
            }
            if ends {
                break;
            }
        }
        event
    }
}

/// A text, or as many of its characters as fit.
fn cut(text: &str) -> &str {
    let end = (0..=MOST).rev().find(|at| text.is_char_boundary(*at));
    if text.len() <= MOST {
        text
    } else {
        &text[..end.unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent() -> Recent {
        Recent {
            events: VecDeque::new(),
            last: 0,
        }
    }

    fn add(recent: &mut Recent, text: &str) {
        recent.add("now".into(), Level::Warn, text);
    }

    #[test]
    fn the_last_ones_are_kept_with_their_numbers() {
        let mut recent = recent();
        for number in 1..=KEPT + 7 {
            add(&mut recent, &number.to_string());
        }
        let all = recent.after(0);
        assert_eq!((all.len(), all[0].number, &*all[0].text), (KEPT, 8, "8"));
        let new: Vec<_> = recent
            .after(KEPT as u64 + 5)
            .iter()
            .map(|it| it.number)
            .collect();
        assert_eq!(new, [1006, 1007]);
        assert_eq!(recent.after(1007), []);
        assert_eq!(recent.after(1008).len(), KEPT, "another master has counted");
    }

    #[test]
    fn an_event_says_what_it_is_about() {
        let mut recent = recent();
        add(
            &mut recent,
            "app=web worker=3 gen=2 pid=9: hangs: in GET /?pid=7 for 3s",
        );
        add(&mut recent, "app=web template gen=2 pid=10: ready");
        add(&mut recent, "SIGTERM from pid 8: stopping");
        add(&mut recent, &"ü".repeat(4000));
        let all = recent.after(0);
        let about = |at: usize| {
            let Event {
                app,
                worker,
                generation,
                pid,
                ..
            } = all[at].clone();
            (app, worker, generation, pid)
        };
        assert_eq!(about(0), (Some("web".into()), Some(3), Some(2), Some(9)));
        assert_eq!(about(1), (Some("web".into()), None, Some(2), Some(10)));
        assert_eq!(about(2), (None, None, None, None));
        assert_eq!(all[3].text.len(), MOST);
        assert_eq!(all[0].level, "WARN");
    }
}
