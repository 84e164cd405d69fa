//! `response_headers`: what changes in the heads of responses.

use preforkd_http::Head;
use preforkd_worker::layers::Changes;

/// Removes, sets and adds fields. The check of the configuration has found all of them valid.
pub fn change(head: &mut Head, changes: &Changes) {
    for name in &changes.remove {
        head.remove(name.as_bytes());
    }
    for (name, value) in &changes.set {
        let _ = head.set(name.as_bytes(), value.as_bytes());
    }
    for (name, value) in &changes.add {
        let _ = head.add(name.as_bytes(), value.as_bytes());
    }
}
