//! What a worker says of its folder for temporary files, and `preforkd -t` before there is one.

use std::io;
use std::path::Path;

/// What follows from a folder in which no file can be made. The one who cannot may stand before it.
pub fn complaint(folder: &Path, error: &io::Error) -> String {
    format!(
        "cannot write to the folder for temporary files, {}: {error} (make it writable, or name another one: env = {{ TMPDIR = \"PATH\" }}); \
         large request bodies, and responses that clients do not take, will be kept in memory, up to max_buffered",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_folder_the_reason_and_what_to_do() {
        let said = complaint(Path::new("/none"), &io::Error::from_raw_os_error(2));
        let start =
            "cannot write to the folder for temporary files, /none: No such file or directory";
        assert!(said.starts_with(start), "{said}");
        assert!(said.contains("env = { TMPDIR = \"PATH\" }"), "{said}");
    }
}
