//! `protocol`, `root` and `index`: how the workers of a program are spoken to.

use std::path::{Path, PathBuf};

use preforkd_worker::front::{Protocol, Scripts, Speech};

use super::{Draft, normal};
use crate::config::{Place, Value};

impl Draft<'_> {
    /// How the workers of an app are spoken to.
    pub(super) fn speech(&self) -> Result<Speech, Place> {
        let written = self.written;
        let protocol = *written.protocol;
        let check = written.reload.check.as_ref();
        let page = check.and_then(|check| check.path.as_ref());
        if let (Some(page), true) = (page, protocol != Protocol::Http) {
            return Err(page.wrong(
                "reload.check.path: a check asks with HTTP, and the workers speak another protocol (write `command` instead)",
            ));
        }
        let scripts = scripts(self.folder, protocol, written.root.as_ref(), &written.index)?;
        if let (Some(root), Some(scripts)) = (&written.root, &scripts)
            && !self.host.is_folder(&scripts.root)
        {
            let missing = root.wrong(missing(&scripts.root));
            self.may_come(missing)?;
        }
        Ok(Speech { protocol, scripts })
    }
}

/// The files that answer, if a `root` is written.
pub(super) fn scripts(
    folder: &Path,
    protocol: Protocol,
    root: Option<&Value<PathBuf>>,
    index: &Value<String>,
) -> Result<Option<Scripts>, Place> {
    let Some(root) = root else {
        return match index.place() {
            Some(_) => Err(index.wrong("index: it is a file of `root` (add `root`, or remove it)")),
            None => Ok(None),
        };
    };
    if protocol != Protocol::FastCgi {
        return Err(root.wrong(
            "root: only programs that speak FastCGI run scripts of a folder (remove it, or write \"fastcgi\" as the protocol)",
        ));
    }
    let name = index.as_str();
    if name.contains('/') || name.starts_with('.') {
        return Err(index.wrong(format!(
            "index: must be the name of a file, not {name:?} (write for example \"index.php\")"
        )));
    }
    Ok(Some(Scripts {
        root: normal(&folder.join(root.as_path())),
        index: name.to_owned(),
    }))
}

/// There is no such folder of scripts.
pub(super) fn missing(root: &Path) -> String {
    format!(
        "root: there is no folder {} (create it first)",
        root.display()
    )
}
