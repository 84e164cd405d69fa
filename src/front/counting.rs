//! The requests of sites are counted, in memory that all workers of the front share ([`preforkd_worker::counters`]).
//!
//! Who chooses what answers a request marks it with the number of the route; the layer that counts finds the counters by that. A request costs a
//! few additions, and neither a look at the clock nor at its names.

use std::sync::Arc;

use preforkd_http::layer::{Ended, Layer, Stages};
use preforkd_worker::counters::{self, Block, Counters};
use preforkd_worker::front::Settings;
use preforkd_worker::gauges::{Gauges, Upstream};

use crate::upstream::proxy::Proxy;

/// The layer that counts. It has the counters by the marks of requests: first those of no site, then those of each site, and after them those of
/// its routes.
#[derive(Debug)]
pub struct Counting(Vec<Block>);

impl Counting {
    /// For the sites of these settings; none if there is no memory for counters at all.
    pub fn layer(counters: Counters, settings: &Settings) -> Option<Arc<dyn Layer>> {
        let nobody = counters.block(counters::NO_SITE)?;
        let mut blocks = vec![nobody];
        let mut left_out = 0;
        for site in &settings.sites {
            let routes = site.labels();
            for route in [""].into_iter().chain(routes.iter().map(String::as_str)) {
                let block = counters.block(counters::key(&site.name, route));
                left_out += usize::from(block.is_none());
                blocks.push(block.unwrap_or(nobody));
            }
        }
        if left_out > 0 {
            log::warn!(
                "could not count the requests of {left_out} routes for themselves: this master has had more than {} of them (restart it); \
                 counting them with those of no site",
                counters::BLOCKS
            );
        }
        Some(Arc::new(Self(blocks)))
    }
}

impl Layer for Counting {
    fn stages(&self) -> Stages {
        Stages {
            ended: true,
            ..Stages::default()
        }
    }

    fn ended(&self, ended: &Ended<'_>) {
        let mark = ended.request.map_or(0, |request| request.marked());
        let block = usize::try_from(mark)
            .ok()
            .and_then(|mark| self.0.get(mark))
            .or(self.0.first());
        if let Some(block) = block {
            block.count(ended.status, ended.bytes, ended.microseconds, ended.waited);
        }
    }
}

/// What this worker says of its upstreams.
#[derive(Debug)]
pub struct States {
    gauges: Gauges,
    /// The numbers of the upstreams in the order of their names.
    numbers: Vec<usize>,
}

impl States {
    /// For the upstreams of these settings, of which the proxy has these numbers.
    pub fn new(gauges: Gauges, numbers: Vec<usize>) -> Self {
        Self { gauges, numbers }
    }

    /// Notes how they are.
    pub fn note(&self, proxy: &Proxy) {
        for (place, number) in self.numbers.iter().enumerate() {
            let (addresses, available) = proxy.addresses(*number);
            let state = Upstream {
                waiting: proxy.waiting_for(*number) as u64,
                addresses: addresses as u64,
                available: available as u64,
            };
            self.gauges.note(place, state);
        }
    }
}
