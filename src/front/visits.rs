//! The open connections of each site, for `preforkd metrics`. A connection is one of the site whose request it has carried last, whatever
//! protocol it speaks; before its first request it is none of any site.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use preforkd_worker::front::Settings;
use preforkd_worker::gauges::Gauges;

/// The number of no site.
const NONE: u32 = u32::MAX;

/// Where connections are counted.
#[derive(Debug)]
pub struct Visited {
    gauges: Gauges,
    /// The numbers of the sites by the marks of requests ([`crate::sites`]).
    sites: Vec<u32>,
}

/// An open connection; what it carries has a share in it.
#[derive(Debug)]
pub struct Visit {
    of: Arc<Visited>,
    site: AtomicU32,
}

impl Visited {
    /// For the sites of these settings.
    pub fn new(gauges: Gauges, settings: &Settings) -> Self {
        let numbers = (0..).zip(&settings.sites);
        let marks = numbers.flat_map(|(number, site)| {
            let routes = site.routes.iter().map(move |_| number);
            [number].into_iter().chain(routes)
        });
        Self {
            gauges,
            sites: [NONE].into_iter().chain(marks).collect(),
        }
    }

    /// A connection has come.
    pub fn begin(of: &Arc<Self>) -> Arc<Visit> {
        Arc::new(Visit {
            of: of.clone(),
            site: AtomicU32::new(NONE),
        })
    }
}

impl Visit {
    /// It carries a request with this mark.
    pub fn carries(&self, mark: u32) {
        let mark = usize::try_from(mark).ok();
        let site = mark.and_then(|mark| self.of.sites.get(mark));
        let site = *site.unwrap_or(&NONE);
        if self.site.load(Ordering::Relaxed) != site {
            self.leave();
            self.site.store(site, Ordering::Relaxed);
            if site != NONE {
                self.of.gauges.opened(site);
            }
        }
    }

    fn leave(&self) {
        let site = self.site.load(Ordering::Relaxed);
        if site != NONE {
            self.of.gauges.closed(site);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.leave();
    }
}
