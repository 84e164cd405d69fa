//! What the front answers itself: redirects, fixed answers, and requests that are for nobody.

use std::sync::Arc;

use preforkd_http::{Body, Exchange, Handler, HeadError, Origin, Request, Response, phrase};
use preforkd_worker::front::Target;

use crate::path::Normal;
use crate::redirect;
use crate::sites::{Choice, Sites};

/// Answers requests.
#[derive(Debug)]
pub struct Answers {
    sites: Arc<Sites>,
    path: Normal,
}

impl Answers {
    /// For these sites.
    pub fn new(sites: Arc<Sites>) -> Self {
        Self {
            sites,
            path: Normal::default(),
        }
    }
}

impl Handler for Answers {
    fn call(
        &mut self,
        request: Request<'_>,
        origin: &Origin,
        _: Body,
        mut exchange: Exchange,
    ) -> Exchange {
        let choice = self.sites.choose(request, origin, &mut self.path);
        if answer(choice, request, &mut exchange).is_err() {
            exchange.discard();
            exchange.fail(500, "500 Internal Server Error\n");
        }
        exchange
    }
}

/// Answers what the front answers itself.
///
/// # Errors
/// The target makes no valid response.
pub fn answer(
    choice: Choice<'_>,
    request: Request<'_>,
    response: &mut Response,
) -> Result<(), HeadError> {
    let target = match choice {
        Choice::NoSite => {
            response.fail(421, "421 Misdirected Request: no site has this host\n");
            return Ok(());
        }
        Choice::NoRoute => {
            response.fail(404, "404 Not Found\n");
            return Ok(());
        }
        Choice::Target { target, .. } => target,
    };
    match target {
        Target::Redirect { status, location } => {
            begin(response, *status)?;
            response.field(b"Location", &redirect::location(location, request))?;
            response.finish(Some(0));
        }
        Target::Answer {
            status,
            content_type,
            body,
        } => {
            begin(response, *status)?;
            response.field(b"Content-Type", content_type.as_bytes())?;
            response.finish(Some(body.len() as u64));
            response.write(body.as_bytes());
        }
        Target::Files(_) | Target::Upstream(_) => {
            response.fail(404, "404 Not Found\n");
            return Ok(());
        }
    }
    response.end();
    Ok(())
}

fn begin(response: &mut Response, status: u16) -> Result<(), HeadError> {
    response.begin(format!("{status} {}", phrase(status)).as_bytes())
}
