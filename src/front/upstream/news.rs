//! Where the requests for an app can go, as the master tells it.

use preforkd_worker::updates::Ready;

use super::address::Address;
use super::proxy::At;

/// Where requests can go. Workers with the same address count as one, as nobody can choose between them.
pub fn places(ready: &Ready) -> Vec<At> {
    let mut places: Vec<At> = Vec::new();
    for worker in &ready.workers {
        let Some(address) = Address::parse(&worker.address) else {
            log::error!(
                "could not use the address of a worker: app={} address={}: it is none; sending it no requests",
                ready.app,
                worker.address.escape_debug()
            );
            continue;
        };
        let at_a_time = worker.at_a_time.map_or(usize::MAX, |most| most as usize);
        match places.iter_mut().find(|place| place.address == address) {
            Some(place) => place.at_a_time = place.at_a_time.saturating_add(at_a_time),
            None => places.push(At { address, at_a_time }),
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use preforkd_worker::updates::Worker;

    use super::*;

    #[test]
    fn workers_that_nobody_can_tell_apart_are_one_place() {
        let worker = |address: &str, at_a_time| Worker {
            address: address.into(),
            at_a_time,
        };
        let ready = Ready {
            app: "web".into(),
            workers: vec![
                worker("unix:/a", Some(1)),
                worker("unix:/b", Some(4)),
                worker("nowhere", None),
                worker("unix:/b", None),
            ],
            refuses: false,
        };
        let at = |path: &str, at_a_time| At {
            address: Address::Unix(path.into()),
            at_a_time,
        };
        assert_eq!(places(&ready), [at("/a", 1), at("/b", usize::MAX)]);
    }
}
