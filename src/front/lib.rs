//! The front: a worker that serves the sites of a configuration, without application code.
//!
//! [`sites`] finds what a request is for: the site by [`hosts`] if the connection is in its [`scope`], its route by [`routes`]. [`answer`]
//! answers what needs nobody else. [`layers`] is what a site has done with its requests and responses besides. [`upstream`] passes
//! requests on to what answers the others. [`tls`] is the transport of listeners that speak it, and [`mod@h2`] that of HTTP/2.
//! [`updates`] come from the master. [`acme`] orders certificates, in a process of its own, and [`proofs`] are what its authority asks for.
//! [`counting`] counts requests, [`clients`] the connections of clients, and [`visits`] those of sites; [`crowds`] limits these. [`metrics`] tells what is counted, in a process of its own. [`service`] holds these together, and [`serve`] is the life of the process.
#![forbid(unsafe_code)]

pub mod acme;
pub mod answer;
pub mod cache;
pub mod check;
pub mod clients;
pub mod counting;
pub mod crowds;
pub mod h2;
pub mod holding;
pub mod hosts;
pub mod layers;
pub mod metrics;
pub mod path;
pub mod proofs;
pub(crate) mod redirect;
pub mod routes;
pub mod scope;
mod scripts;
pub mod serve;
pub mod service;
pub mod sites;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod updates;
pub mod upstream;
pub mod visits;
