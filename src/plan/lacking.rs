//! What the host lacks for an app. An app that is required is refused then; another one does without for now. What is wrong on any host
//! is an error of the configuration, also in an app that is not required.

use std::cell::RefCell;

use super::{App, Draft};
use crate::config::{Place, Sources};

/// What was found to be missing for an app that is not required.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    /// The first thing without which it is not known how to start a worker.
    unfit: RefCell<Option<Place>>,
    /// What is looked at again whenever a worker is started.
    later: RefCell<Vec<Place>>,
    /// What is allowed and probably a mistake.
    doubts: RefCell<Vec<Place>>,
}

/// The end of a warning about what an app lacks for now, if the app takes over without proof.
pub const TRIED_AGAIN: &str = "; not required, so it is tried again";

impl Lacking {
    /// Notes in the app what it lacks.
    pub(super) fn note(self, app: &mut App, sources: &Sources) {
        for place in self.doubts.into_inner() {
            app.warnings.push(sources.diagnostic(place).one_line());
        }
        for place in self.later.into_inner() {
            let what = sources.diagnostic(place).one_line();
            app.warnings.push(format!("{what}{TRIED_AGAIN}"));
            app.missing.get_or_insert(what);
        }
        if let Some(place) = self.unfit.into_inner() {
            let why = sources.diagnostic(place).one_line();
            app.warnings.push(format!(
                "{why}; not required, so it is not started until a reload finds all that it needs"
            ));
            app.unfit = Some(why);
        }
    }
}

impl Draft<'_> {
    /// No worker can be started without `what`: it is an error of a required app. Otherwise `instead` stands in the plan of an app of
    /// which no worker is started.
    pub(super) fn lacks<T>(&self, what: Place, instead: T) -> Result<T, Place> {
        if !self.is_optional() {
            return Err(what);
        }
        self.lacking.unfit.borrow_mut().get_or_insert(what);
        Ok(instead)
    }

    /// `what` is an error of a required app. Otherwise it may come later: each start of a worker looks for it.
    pub(super) fn may_come(&self, what: Place) -> Result<(), Place> {
        if !self.is_optional() {
            return Err(what);
        }
        self.lacking.later.borrow_mut().push(what);
        Ok(())
    }

    /// `what` is allowed and probably a mistake.
    pub(super) fn doubt(&self, what: Place) {
        self.lacking.doubts.borrow_mut().push(what);
    }

    /// Whether something is missing without which no worker can be started.
    pub(super) fn is_unfit(&self) -> bool {
        self.lacking.unfit.borrow().is_some()
    }

    fn is_optional(&self) -> bool {
        !*self.written.required
    }
}
