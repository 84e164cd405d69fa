//! What the front answers itself: redirects, fixed answers, and requests that are for nobody.

use preforkd_http::{HeadError, Request, Response};
use preforkd_worker::front::Target;

use crate::redirect;
use crate::sites::Choice;

/// Answers what the front answers itself.
///
/// # Errors
/// The target makes no valid response.
pub fn answer(
    choice: Choice<'_>,
    request: Request<'_>,
    response: &mut Response,
) -> Result<(), HeadError> {
    let (target, stripped) = match choice {
        Choice::NoSite => {
            response.fail(421, "421 Misdirected Request: no site has this host\n");
            return Ok(());
        }
        Choice::Misdirected => {
            let why = "421 Misdirected Request: this connection is not for this host\n";
            response.fail(421, why);
            return Ok(());
        }
        Choice::NoRoute => {
            response.fail(404, "404 Not Found\n");
            return Ok(());
        }
        Choice::Target {
            target, stripped, ..
        } => (target, stripped),
    };
    match target {
        Target::Redirect { status, location } => {
            response.begin_with(*status)?;
            response.field(
                b"Location",
                &redirect::location(location, request, stripped),
            )?;
            response.finish(Some(0));
        }
        Target::Answer {
            status,
            content_type,
            body,
        } => {
            response.begin_with(*status)?;
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

/// Sends a client to the same folder with a slash at its end, so that the links in it lead to its files.
pub fn folder(request: Request<'_>, response: &mut Response) {
    let location = redirect::location("{path}/{query}", request, 0);
    let redirected = response
        .begin_with(308)
        .and_then(|()| response.field(b"Location", &location))
        .map(|()| response.finish(Some(0)));
    match redirected {
        Ok(()) => response.end(),
        Err(_) => response.fail(500, "500 Internal Server Error\n"),
    }
}
