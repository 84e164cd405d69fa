//! The dynamic loader that a program names in its ELF headers. It tells the C library that the program is linked with: an extension module
//! for one cannot be loaded by an interpreter of another.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use elf_headers::ElfStream;
use elf_headers::abi::PT_INTERP;
use elf_headers::endian::AnyEndian;
use nix::fcntl::OFlag;

/// The maximum length of its path: PATH_MAX.
const MAX_PATH: u64 = 4096;

/// Why the interpreter at `path` cannot load the extension module of the preforkd at `own`; `None` if nothing is known against it.
pub fn refusal(path: &Path, own: &Path) -> Option<String> {
    let (theirs, ours) = (loader(path)?, loader(own)?);
    // Some systems keep it in a folder of their own.
    let name = |loader: &str| loader.rsplit('/').next().unwrap_or_default().to_owned();
    let (theirs, ours) = (name(&theirs), name(&ours));
    // A static program says nothing of its extension module.
    (theirs != ours && !ours.is_empty()).then(|| {
        format!(
            "{} cannot load the extension module: it is linked with {}, and this preforkd with {} (write the path of another interpreter, \
             `python = \"PATH\"`, or install the preforkd that is made for this one)",
            path.display(),
            library(&theirs),
            library(&ours)
        )
    })
}

/// The C library that comes with a loader, and its name.
fn library(loader: &str) -> String {
    let library = match loader {
        "" => return "no C library that loads modules".into(),
        name if name.starts_with("ld-musl") => "musl",
        name if name.starts_with("ld-linux") || name.starts_with("ld64") => "glibc",
        _ => "the C library",
    };
    format!("{library} ({loader})")
}

/// The path of the loader of a program, which is empty for a static one; `None` if it is no ELF file that can be read.
fn loader(path: &Path) -> Option<String> {
    // O_NONBLOCK, in case the path is a fifo.
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let mut file = opened.ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let program = ElfStream::<AnyEndian, _>::open_stream(file.try_clone().ok()?).ok()?;
    let mut segments = program.segments().iter();
    let Some(segment) = segments.find(|segment| segment.p_type == PT_INTERP) else {
        return Some(String::new());
    };
    file.seek(SeekFrom::Start(segment.p_offset)).ok()?;
    let mut name = Vec::new();
    let length = segment.p_filesz.min(MAX_PATH);
    file.take(length).read_to_end(&mut name).ok()?;
    let name = name.split(|&byte| byte == 0).next()?;
    // It is shown to people, and the file may be anybody's.
    let shown = String::from_utf8_lossy(name);
    Some(shown.chars().filter(|c| !c.is_control()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of this program with another loader, whose name is not longer.
    fn linked_with(folder: &Path, name: &str) -> std::path::PathBuf {
        let own = std::env::current_exe().expect("a path");
        let theirs = loader(&own).expect("an ELF file");
        let mut bytes = std::fs::read(&own).expect("this program");
        let at = bytes
            .windows(theirs.len())
            .position(|bytes| bytes == theirs.as_bytes())
            .expect("its loader");
        let mut padded = name.as_bytes().to_vec();
        padded.resize(theirs.len(), 0);
        bytes[at..at + theirs.len()].copy_from_slice(&padded);
        let path = folder.join(name.replace(|c: char| !c.is_alphanumeric(), "_"));
        std::fs::write(&path, bytes).expect("room");
        path
    }

    #[test]
    fn an_interpreter_of_another_c_library_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = std::env::current_exe().expect("a path");
        let other = linked_with(folder.path(), "/lib/ld-musl-x.so.1");
        let said = refusal(&other, &own).expect("refused");
        assert!(
            said.contains("it is linked with musl (ld-musl-x.so.1), and this preforkd with "),
            "{said}"
        );
        assert!(said.contains("`python = \"PATH\"`"), "{said}");
        let odd = linked_with(folder.path(), "/l\u{1b}[2J");
        let said = refusal(&odd, &own).expect("refused");
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }

    #[test]
    fn one_of_the_same_is_not_wherever_its_loader_lies() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = std::env::current_exe().expect("a path");
        assert_eq!(refusal(&own, &own), None);
        let name = loader(&own).expect("an ELF file");
        let name = name.rsplit('/').next().expect("a name").to_owned();
        let elsewhere = linked_with(folder.path(), &format!("/{name}"));
        assert_eq!(refusal(&elsewhere, &own), None);
    }

    #[test]
    fn what_is_no_elf_file_is_left_to_the_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = std::env::current_exe().expect("a path");
        let script = folder.path().join("python");
        std::fs::write(&script, "#!/bin/sh\n").expect("room");
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("room");
        for path in [&script, &fifo, &folder.path().join("none")] {
            assert_eq!(refusal(path, &own), None, "{}", path.display());
        }
    }
}
