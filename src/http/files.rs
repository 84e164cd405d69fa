//! Static files: folders served under a prefix of the path, without the handler.
//!
//! A file is opened with openat2(2) and RESOLVE_BENEATH: the kernel itself refuses every way out of the folder, symbolic links
//! and races with someone who renames included, which no check of a path beforehand can promise.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

use crate::exchange::Part;
use crate::message::request::Request;
use crate::message::response::{self, Response};
use crate::proto::h1::target::percent_decode;

mod conditions;

use conditions::{Condition, Validators};

/// A file up to this size is copied to the head of its response, so that both go out in one write.
const SMALL: u64 = 64 * 1024;

/// The folders of an app.
#[derive(Debug, Default)]
pub struct Files {
    /// The longest prefix first.
    folders: Vec<Folder>,
}

#[derive(Debug)]
struct Folder {
    prefix: Vec<u8>,
    root: OwnedFd,
}

impl Files {
    /// Opens the folders; each prefix begins and ends with a slash.
    ///
    /// # Errors
    /// A folder cannot be opened, or a prefix has no slash where it must; the path or prefix is in the message.
    pub fn new<'a>(folders: impl IntoIterator<Item = (&'a str, &'a PathBuf)>) -> io::Result<Self> {
        let mut folders = folders
            .into_iter()
            .map(|(prefix, path)| Folder::open(prefix, path))
            .collect::<io::Result<Vec<_>>>()?;
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.prefix.len()));
        Ok(Self { folders })
    }

    /// Whether there is no folder.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    fn folder(&self, path: &[u8]) -> Option<&Folder> {
        self.folders
            .iter()
            .find(|folder| path.starts_with(&folder.prefix))
    }

    /// Whether the request is for a file: its path is under a prefix.
    pub(crate) fn is_meant(&self, request: Request<'_>) -> bool {
        self.folder(request.path()).is_some()
    }

    /// Answers a request for a file.
    pub(crate) fn answer(
        &self,
        request: Request<'_>,
        mut response: Response,
    ) -> (Response, Option<Part>) {
        let path = request.path();
        let part = match (request.method(), self.folder(path)) {
            (b"GET" | b"HEAD", Some(folder)) => {
                folder.serve(&path[folder.prefix.len()..], request, &mut response)
            }
            (_, Some(_)) => {
                let head = [("Allow", "GET, HEAD"), ("Content-Type", "text/plain")];
                short(&mut response, 405, &head);
                None
            }
            (_, None) => {
                short(&mut response, 404, &[("Content-Type", "text/plain")]);
                None
            }
        };
        let part = part.map(|part| Part {
            length: response.pass(part.length),
            ..part
        });
        (response, part)
    }
}

impl Folder {
    fn open(prefix: &str, path: &Path) -> io::Result<Self> {
        if !(prefix.starts_with('/') && prefix.ends_with('/')) {
            return Err(io::Error::other(format!(
                "the prefix {prefix:?} of static files must begin and end with a slash"
            )));
        }
        let root = open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        Ok(Self {
            prefix: prefix.into(),
            root,
        })
    }

    fn serve(&self, raw: &[u8], request: Request<'_>, response: &mut Response) -> Option<Part> {
        let opened = local_name(raw).and_then(|name| {
            let file = self.open_file(&name).ok()?;
            let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((name, file, metadata))
        });
        let Some((name, file, metadata)) = opened else {
            short(response, 404, &[("Content-Type", "text/plain")]);
            return None;
        };
        let size = metadata.size();
        let modified =
            SystemTime::UNIX_EPOCH + Duration::from_secs(metadata.mtime().max(0).cast_unsigned());
        let validators = Validators {
            // Two versions of the same length within one tick of the file system's clock would share it; no better is to
            // be had without reading the file.
            etag: format!(
                "\"{:x}-{:x}-{size:x}\"",
                metadata.mtime(),
                metadata.mtime_nsec()
            ),
            last_modified: httpdate::fmt_http_date(modified),
            modified,
        };
        let common = [
            ("ETag", validators.etag.as_str()),
            ("Last-Modified", &validators.last_modified),
        ];
        let kind = content_type(&name);
        let (offset, length) = match conditions::check(request, &validators, size) {
            Condition::NotModified => {
                begin(response, 304, &common);
                response.finish(None);
                response.end();
                return None;
            }
            Condition::Unsatisfiable => {
                let range = format!("bytes */{size}");
                short(
                    response,
                    416,
                    &[("Content-Range", &range), ("Content-Type", "text/plain")],
                );
                return None;
            }
            Condition::Part { first, last } => {
                begin(response, 206, &common);
                let _ = response.field(
                    b"Content-Range",
                    format!("bytes {first}-{last}/{size}").as_bytes(),
                );
                (first, last - first + 1)
            }
            Condition::Whole => {
                begin(response, 200, &common);
                let _ = response.field(b"Accept-Ranges", b"bytes");
                (0, size)
            }
        };
        let _ = response.field(b"Content-Type", kind.as_bytes());
        let _ = response.field(b"Content-Length", length.to_string().as_bytes());
        response.finish(None);
        if response.is_bodyless() {
            response.end();
            return None;
        }
        if length <= SMALL && offset == 0 {
            let mut data = Vec::with_capacity(length as usize);
            // A file that became shorter meanwhile leaves the response incomplete, and `end` cuts it.
            let _ = (&file).take(length).read_to_end(&mut data);
            response.write(&data);
            response.end();
            return None;
        }
        Some(Part {
            file,
            offset,
            length,
        })
    }

    fn open_file(&self, name: &[u8]) -> io::Result<File> {
        // Without NONBLOCK a FIFO in the folder would hold the worker for ever.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.root, name, flags, Mode::empty(), resolve)?.into())
    }
}

/// The path below the folder, decoded once; none for what names no file: an encoded slash, NUL, a backslash, and segments that are empty or
/// begin with a dot (`.`, `..`, `.git`, `.env`).
fn local_name(raw: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    percent_decode(raw, &mut name);
    let slashes = |bytes: &[u8]| bytes.iter().filter(|&&b| b == b'/').count();
    let clean = slashes(raw) == slashes(&name) && !name.iter().any(|b| matches!(b, 0 | b'\\'));
    let visible = name
        .split(|&b| b == b'/')
        .all(|segment| !matches!(segment.first(), None | Some(b'.')));
    (clean && visible).then_some(name)
}

fn content_type(name: &[u8]) -> String {
    let kind =
        mime_guess::from_path(Path::new(&*String::from_utf8_lossy(name))).first_or_octet_stream();
    match (kind.type_().as_str(), kind.subtype().as_str()) {
        ("text", _) | ("application", "javascript" | "json") => {
            format!("{}; charset=utf-8", kind.essence_str())
        }
        _ => kind.essence_str().to_owned(),
    }
}

fn begin(response: &mut Response, status: u16, fields: &[(&str, &str)]) {
    // Our own status, names and values are valid.
    let _ = response.begin(format!("{status} {}", response::phrase(status)).as_bytes());
    for (name, value) in fields {
        let _ = response.field(name.as_bytes(), value.as_bytes());
    }
}

fn short(response: &mut Response, status: u16, fields: &[(&str, &str)]) {
    begin(response, status, fields);
    let text = format!("{status} {}\n", response::phrase(status));
    response.finish(Some(text.len() as u64));
    response.write(text.as_bytes());
    response.end();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;
    use crate::{Connection, Event, Limits};

    struct Site {
        _dir: tempfile::TempDir,
        files: Files,
    }

    fn site() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("static");
        std::fs::create_dir_all(root.join("css")).unwrap();
        std::fs::write(dir.path().join("secret.txt"), "secret").unwrap();
        std::fs::write(root.join("css/a b.css"), "body {}").unwrap();
        std::fs::write(root.join("data.bin"), (0..=255).collect::<Vec<u8>>()).unwrap();
        std::fs::write(root.join("large.txt"), vec![b'x'; 100_000]).unwrap();
        std::fs::write(root.join(".env"), "secret").unwrap();
        symlink("../secret.txt", root.join("out.txt")).unwrap();
        symlink(dir.path().join("secret.txt"), root.join("absolute.txt")).unwrap();
        symlink("data.bin", root.join("in.bin")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let files = Files::new([("/static/", &root), ("/", &root.join("css"))]).unwrap();
        Site { _dir: dir, files }
    }

    /// Status, head and body; the body of a part as its offset and length.
    fn ask(site: &Site, method: &str, path: &str, fields: &str) -> (u16, String, String) {
        let mut connection = Connection::new(Arc::new(Limits::default()));
        connection
            .receive(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
        assert_eq!(connection.advance(), Event::Request);
        let response = Response::new(true, method == "HEAD", true);
        let (mut response, part) = site.files.answer(connection.request(), response);
        let status = response.status();
        let text: String = response.take_out().iter().map(|&b| char::from(b)).collect();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let body = part.map_or_else(
            || body.to_owned(),
            |part| format!("{}+{}", part.offset, part.length),
        );
        (status, head.to_owned(), body)
    }

    fn value(head: &str, name: &str) -> String {
        let line = head
            .lines()
            .find(|line| line.starts_with(&format!("{name}: ")))
            .unwrap_or_default();
        line.split_once(": ")
            .map_or_else(String::new, |(_, value)| value.to_owned())
    }

    #[test]
    fn files_are_served_with_type_and_length() {
        let site = site();
        let (status, head, body) = ask(&site, "GET", "/static/css/a%20b.css?v=1", "");
        assert_eq!((status, body.as_str()), (200, "body {}"));
        assert_eq!(
            (value(&head, "Content-Type"), value(&head, "Content-Length")),
            ("text/css; charset=utf-8".into(), "7".into())
        );
        let (status, head, body) = ask(&site, "HEAD", "/static/data.bin", "");
        assert_eq!(
            (status, value(&head, "Content-Length"), body),
            (200, "256".into(), String::new())
        );
        assert_eq!(ask(&site, "GET", "/static/large.txt", "").2, "0+100000");
        assert_eq!(ask(&site, "GET", "/static/in.bin", "").0, 200);
        assert_eq!(
            ask(&site, "GET", "/a%20b.css", "").0,
            200,
            "the longest prefix wins, a shorter one is there too"
        );
        let (status, head, _) = ask(&site, "POST", "/static/data.bin", "");
        assert_eq!((status, value(&head, "Allow")), (405, "GET, HEAD".into()));
    }

    #[test]
    fn there_is_no_way_out() {
        let site = site();
        for path in [
            "../secret.txt",
            "%2e%2e/secret.txt",
            "css/../../secret.txt",
            "..%2fsecret.txt",
            "css%2fa%20b.css",
            "..\\secret.txt",
            "%5c..",
            "out.txt",
            "absolute.txt",
            "up/secret.txt",
            "up/static/data.bin",
            ".env",
            "css/",
            "css",
            "",
            "/",
            "/etc/passwd",
            "css//a%20b.css",
            "data.bin/",
            "data.bin%00",
            "%00",
            "nothing",
            "./data.bin",
            "%252e%252e/secret.txt",
        ] {
            let (status, _, body) = ask(&site, "GET", &format!("/static/{path}"), "");
            assert_eq!(status, 404, "{path}");
            assert!(!body.contains("secret"));
        }
    }

    #[test]
    fn ranges() {
        let site = site();
        for (range, content_range, body) in [
            ("0-0", "bytes 0-0/100000", "x"),
            ("99990-", "bytes 99990-99999/100000", "99990+10"),
            ("-5", "bytes 99995-99999/100000", "99995+5"),
            ("-200000", "bytes 0-99999/100000", "0+100000"),
            ("10-200000", "bytes 10-99999/100000", "10+99990"),
        ] {
            let (status, head, answer) = ask(
                &site,
                "GET",
                "/static/large.txt",
                &format!("Range: bytes={range}\r\n"),
            );
            assert_eq!(
                (
                    status,
                    value(&head, "Content-Range").as_str(),
                    answer.as_str()
                ),
                (206, content_range, body),
                "{range}"
            );
        }
        for range in ["100000-", "-0", "200000-300000"] {
            let (status, head, _) = ask(
                &site,
                "GET",
                "/static/large.txt",
                &format!("Range: bytes={range}\r\n"),
            );
            assert_eq!(
                (status, value(&head, "Content-Range").as_str()),
                (416, "bytes */100000"),
                "{range}"
            );
        }
        for range in [
            "bytes=5-4",
            "bytes=",
            "bytes=a-b",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=-",
            "bytes=+1-2",
            "0-1",
        ] {
            assert_eq!(
                ask(
                    &site,
                    "GET",
                    "/static/large.txt",
                    &format!("Range: {range}\r\n")
                )
                .0,
                200,
                "{range}"
            );
        }
        assert_eq!(
            ask(&site, "HEAD", "/static/large.txt", "Range: bytes=0-0\r\n").0,
            200
        );
    }

    #[test]
    fn conditions_hold() {
        let site = site();
        let (_, head, _) = ask(&site, "GET", "/static/data.bin", "");
        let (etag, date) = (value(&head, "ETag"), value(&head, "Last-Modified"));
        let long_ago = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (fields, status) in [
            (format!("If-None-Match: {etag}\r\n"), 304),
            (format!("If-None-Match: \"x\", W/{etag}\r\n"), 304),
            ("If-None-Match: *\r\n".into(), 304),
            ("If-None-Match: \"x\"\r\n".into(), 200),
            (format!("If-Modified-Since: {date}\r\n"), 304),
            (format!("If-Modified-Since: {long_ago}\r\n"), 200),
            ("If-Modified-Since: yesterday\r\n".into(), 200),
            (
                format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}\r\n"),
                200,
            ),
            (format!("Range: bytes=0-1\r\nIf-Range: {etag}\r\n"), 206),
            (format!("Range: bytes=0-1\r\nIf-Range: W/{etag}\r\n"), 200),
            (format!("Range: bytes=0-1\r\nIf-Range: {date}\r\n"), 206),
            (format!("Range: bytes=0-1\r\nIf-Range: {long_ago}\r\n"), 200),
        ] {
            let (got, head, body) = ask(&site, "GET", "/static/data.bin", &fields);
            assert_eq!(got, status, "{fields}");
            assert_eq!(value(&head, "ETag"), etag);
            assert!(status != 304 || body.is_empty());
        }
    }
}
