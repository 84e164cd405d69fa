//! What a site, or a route of it, may have done with its requests and responses. To a site that has no such keys it costs one look at the
//! request.
//!
//! [`gate`] is the layer of the server that does it. [`of_site`] is what it does for a site, compiled from the settings. A request passes, in this
//! order: [`access`], the maintenance page, the limits of its [`rate`], [`auth`], the limit of the body, [`forward`]. A response passes the changes of its head (`fields`) and [`compression`].
//! [`sendfile`] says which files an application may have sent.
//! [`readings`] finds the routes whose rules count for a request.

pub mod access;
pub mod auth;
pub mod compression;
#[cfg(any(test, fuzzing))]
pub mod drive;
mod fields;
pub mod forward;
pub mod gate;
pub mod of_site;
pub mod rate;
pub mod readings;
pub mod sendfile;
mod values;
