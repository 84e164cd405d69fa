//! `preforkd --version`: the versions of all files of this release, and where they lie.

use preforkd_worker::version;

use super::{FAILED, OK};
use crate::effects::installed;
use crate::logging;
use crate::parts::{self, Part};

/// What is printed, and the exit status: 1 if a part is of another release. One that is missing may not be needed.
pub(super) fn show() -> (String, u8) {
    let mut lines = vec![format!("preforkd {}", version::own())];
    let own = match installed::own() {
        Ok(own) => own,
        Err(message) => {
            logging::print_error(&message);
            return (lines.remove(0), FAILED);
        }
    };
    let mut status = OK;
    for part in Part::ALL {
        let name = part.file_name();
        let path = match installed::place(&own, part) {
            Ok(path) => path,
            Err(message) => {
                lines.push(format!("{name}: {message}"));
                continue;
            }
        };
        let shown = path.display();
        match installed::version_of(&path) {
            Ok(found) => {
                let version = found.as_deref().unwrap_or("of an unknown release");
                lines.push(format!("{name} {version} ({shown})"));
                let mismatch = parts::mismatch(&own, version::own(), part, &path, found.as_deref());
                if let Some(message) = mismatch {
                    logging::print_error(&message);
                    status = FAILED;
                }
            }
            Err(error) => {
                logging::print_error(&format!("cannot read {shown}: {error}"));
                status = FAILED;
            }
        }
    }
    (lines.join("\n"), status)
}
