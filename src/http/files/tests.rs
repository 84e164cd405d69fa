//! The static files as a whole: from a request to its response.

use std::fs::{create_dir_all, read, remove_file, rename, write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::exchange::Source;
use crate::message::response::Response;
use crate::{Connection, Event, Limits};

const SECOND: Instant = 1_000_000_000;

struct Site {
    _dir: tempfile::TempDir,
    root: PathBuf,
    files: Files,
    now: Instant,
    /// The prefix that a proxy has told.
    told: Option<&'static str>,
}

/// What a client gets; the status is 0 where the handler would be called.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Parts of a file that the kernel sends.
    parts: usize,
}

impl Answer {
    fn value(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = fields.filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = values.next().map_or("", |(_, value)| value);
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}

fn mapping(prefix: &str, path: &Path) -> (String, Mapping) {
    mapping_with(prefix, path, |_| {})
}

fn mapping_with(prefix: &str, path: &Path, change: impl FnOnce(&mut Mapping)) -> (String, Mapping) {
    let mut mapping = Mapping {
        path: path.into(),
        index: Some("index.html".into()),
        ..Mapping::default()
    };
    change(&mut mapping);
    (prefix.into(), mapping)
}

const ORIGIN: Origin = Origin {
    listener: 0,
    peer: None,
    relayed: None,
};

/// A folder with some files, and these mappings of it.
fn site(mappings: impl FnOnce(&Path) -> Vec<(String, Mapping)>) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("static");
    create_dir_all(root.join("css")).unwrap();
    create_dir_all(root.join("docs")).unwrap();
    write(dir.path().join("secret.txt"), "secret").unwrap();
    write(root.join("css/a b.css"), "body {}").unwrap();
    write(root.join("docs/index.html"), "index").unwrap();
    write(root.join("data.bin"), (0..=255).collect::<Vec<u8>>()).unwrap();
    write(root.join("large.txt"), large()).unwrap();
    write(root.join("empty.txt"), "").unwrap();
    write(root.join(".env"), "secret").unwrap();
    let mut files = Files::new(&mappings(&root).into_iter().collect(), "", "www".into()).unwrap();
    // So that what was written just now is kept.
    files.racy = Duration::ZERO;
    Site {
        _dir: dir,
        root,
        files,
        now: 10 * SECOND,
        told: None,
    }
}

fn plain() -> Site {
    site(|root| vec![mapping("/static/", root)])
}

fn large() -> Vec<u8> {
    (0..100_000_u32).map(|n| (n % 251) as u8).collect()
}

/// Sets the time of a file, in seconds from now.
fn change_time(path: &Path, seconds: i64) {
    let time = std::time::SystemTime::now();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds < 0 {
        true => time - distance,
        false => time + distance,
    };
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

impl Site {
    fn ask(&mut self, method: &str, path: &str, fields: &str) -> Answer {
        let mut connection = Connection::new(Arc::new(Limits::default()));
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        connection.receive(request.as_bytes());
        assert_eq!(connection.advance(), Event::Request, "{request}");
        connection.facts_mut().prefix = self.told.map(|prefix| prefix.as_bytes().into());
        let Some(found) = self.files.find(connection.request(), &ORIGIN, self.now) else {
            return Answer::default();
        };
        let response = Response::new(true, method == "HEAD", true);
        let (mut response, part) = found.answer(connection.request(), response);
        let mut bytes = response.take_out();
        let mut parts = 0;
        if let Some(part) = part {
            let mut add = |bytes: &mut Vec<u8>, offset, length| {
                let mut piece = vec![0; length as usize];
                match &part.source {
                    Source::File(file) => file.read_exact_at(&mut piece, offset).unwrap(),
                    Source::Memory(content) => {
                        piece.copy_from_slice(&content[offset as usize..(offset + length) as usize])
                    }
                }
                bytes.extend_from_slice(&piece);
                parts += 1;
            };
            add(&mut bytes, part.offset, part.length);
            for piece in part.then {
                response.write(&piece.text);
                bytes.extend_from_slice(&response.take_out());
                let length = response.pass(piece.length);
                add(&mut bytes, piece.offset, length);
            }
            response.end();
        }
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        let answer = Answer {
            status: response.status(),
            head: String::from_utf8(bytes[..end].to_vec()).unwrap(),
            body: bytes[end + 4..].to_vec(),
            parts,
        };
        assert!(!response.is_cut(), "{answer:?}");
        if method != "HEAD" && answer.status != 304 {
            assert_eq!(
                answer.value("Content-Length"),
                answer.body.len().to_string()
            );
        }
        answer
    }

    fn get(&mut self, path: &str, fields: &str) -> Answer {
        self.ask("GET", path, fields)
    }

    fn status(&mut self, path: &str) -> u16 {
        self.get(path, "").status
    }
}

#[test]
fn what_is_not_in_a_folder_may_be_in_one_behind_it() {
    let mut site = site(|root| {
        let (first, second) = (root.join("first"), root.join("second"));
        create_dir_all(first.join("large.txt")).unwrap();
        create_dir_all(&second).unwrap();
        write(first.join("both.txt"), "first").unwrap();
        write(second.join("both.txt"), "second").unwrap();
        write(second.join("both.txt.gz"), "of the second").unwrap();
        write(second.join("one.txt"), "one").unwrap();
        write(second.join("one.txt.gz"), "packed").unwrap();
        let folders = mapping_with("/static/", &first, |mapping| {
            mapping.behind = vec![second, root.to_owned()];
            mapping.precompressed = vec![Coding::Gzip];
        });
        vec![folders]
    });
    let gzip = "Accept-Encoding: gzip\r\n";
    let both = site.get("/static/both.txt", gzip);
    assert_eq!(both.text(), "first", "not what is beside another file");
    assert_eq!(site.get("/static/one.txt", gzip).text(), "packed");
    assert_eq!(site.get("/static/one.txt", "").text(), "one");
    let large = site.get("/static/large.txt", "");
    assert_eq!(
        large.body,
        self::large(),
        "a folder of that name comes first"
    );
    assert_eq!(site.status("/static/none.txt"), 404);
    write(site.root.join("first/one.txt"), "new").unwrap();
    site.now += 2 * SECOND;
    assert_eq!(site.get("/static/one.txt", "").text(), "new");
}

#[test]
fn files_are_served_with_type_and_length() {
    let mut site = site(|root| {
        vec![
            mapping("/", &root.join("css")),
            mapping("/static/", root),
            mapping("/logo", &root.join("data.bin")),
        ]
    });
    let css = site.get("/static/css/a%20b.css?v=1", "");
    assert_eq!((css.status, css.text()), (200, "body {}"));
    assert_eq!(css.value("Content-Type"), "text/css; charset=utf-8");
    assert_eq!(css.value("Accept-Ranges"), "bytes");
    for name in ["Cache-Control", "Vary", "Content-Encoding"] {
        assert_eq!(css.value(name), "");
    }
    let head = site.ask("HEAD", "/static/data.bin", "");
    assert_eq!((head.status, head.value("Content-Length")), (200, "256"));
    assert_eq!(head.body, b"");
    let large = site.get("/static/large.txt", "");
    assert_eq!((large.body, large.parts), (self::large(), 1));
    assert_eq!(site.get("/static/empty.txt", "").body, b"");
    assert_eq!(site.status("/a%20b.css"), 200, "of the shorter prefix");
    let single = site.get("/logo", "");
    assert_eq!((single.status, single.body.len()), (200, 256));
    for path in ["/logo/", "/logo2", "/static/logo"] {
        assert_eq!(site.status(path), 404, "{path}");
    }
    for method in ["POST", "OPTIONS", "DELETE"] {
        let refused = site.ask(method, "/static/data.bin", "");
        assert_eq!((refused.status, refused.value("Allow")), (405, "GET, HEAD"));
    }
}

#[test]
fn there_is_no_way_out() {
    let mut site = plain();
    let root = site.root.clone();
    symlink("../secret.txt", root.join("out.txt")).unwrap();
    symlink(
        root.parent().unwrap().join("secret.txt"),
        root.join("absolute.txt"),
    )
    .unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink(root.parent().unwrap(), root.join("absolute-up")).unwrap();
    symlink("/proc/self/environ", root.join("environ")).unwrap();
    symlink("/proc/self/root", root.join("proc-root")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
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
        "absolute-up/secret.txt",
        "absolute-up/static/data.bin",
        "environ",
        "proc-root/etc/passwd",
        "loop",
        ".env",
        "css/",
        "css",
        "",
        "/",
        "/etc/passwd",
        "css/../..//secret.txt",
        "css/..%2f../secret.txt",
        "./../secret.txt",
        "css/../.env",
        "up//secret.txt",
        "docs/../up/secret.txt",
        "data.bin/",
        "data.bin%00",
        "%00",
        "nothing",
        "%252e%252e/secret.txt",
    ] {
        let answer = site.get(&format!("/static/{path}"), "");
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("secret"));
    }
    // An encoded slash ends no prefix.
    assert_eq!(site.status("/static%2Fdata.bin"), 0);
    assert_eq!(site.status("/static"), 0);
}

#[test]
fn empty_and_dot_segments_name_nothing() {
    let mut site = site(|root| {
        let through = |mapping: &mut Mapping| mapping.fallthrough = true;
        vec![
            mapping("/static/", root),
            mapping("/logo", &root.join("data.bin")),
            mapping_with("/through/", root, through),
        ]
    });
    site.files.prefix = "/shop".into();
    for (path, status) in [
        ("/static//data.bin", 200),
        ("//static/data.bin", 200),
        ("/static/css//a%20b.css", 200),
        ("/static/./data.bin", 200),
        ("/static/docs/../data.bin", 200),
        ("/static/docs/%2e%2e/data.bin", 200),
        ("/api/../static/data.bin", 200),
        ("/shop//static/data.bin", 200),
        ("/x/..//shop/static/data.bin", 200),
        ("//logo", 200),
        ("/static//docs/", 200),
        ("/static/docs//", 200),
        ("/static/docs/.", 200),
        ("/static//docs", 301),
        ("/static//none", 404),
        // Out of the mapping.
        ("/static/../data.bin", 404),
        ("/static/../api", 404),
        ("/static/../../api", 404),
        // For the handler, as it came.
        ("//api", 0),
        ("/api//static/data.bin", 0),
        ("/..", 0),
        ("/through//none", 0),
        ("/through/../api", 0),
        ("/through//data.bin", 200),
        // An encoded slash is a part of a name.
        ("/static%2Fdata.bin", 0),
        ("/static/docs%2F..%2Fdata.bin", 404),
    ] {
        assert_eq!(site.status(path), status, "{path}");
    }
    assert_eq!(site.get("/static//docs", "").value("Location"), "./docs/");
}

#[test]
fn links_inside_the_folder_work_however_they_are_written() {
    let mut site = plain();
    let root = site.root.clone();
    symlink("data.bin", root.join("in.bin")).unwrap();
    symlink("../data.bin", root.join("css/up.bin")).unwrap();
    symlink("../static/data.bin", root.join("around.bin")).unwrap();
    symlink(root.join("data.bin"), root.join("absolute.bin")).unwrap();
    symlink(root.join("css"), root.join("style")).unwrap();
    symlink("../static/css", root.join("around")).unwrap();
    symlink("../static", root.join("itself")).unwrap();
    symlink("absolute.bin", root.join("twice.bin")).unwrap();
    for path in [
        "in.bin",
        "css/up.bin",
        "around.bin",
        "absolute.bin",
        "style/a%20b.css",
        "around/a%20b.css",
        "around/up.bin",
        "itself/data.bin",
        "twice.bin",
    ] {
        assert_eq!(site.status(&format!("/static/{path}")), 200, "{path}");
    }
}

#[test]
fn the_log_tells_of_links_that_lead_out_of_the_folder() {
    let mut site = site(|root| {
        let through = |mapping: &mut Mapping| mapping.fallthrough = true;
        vec![
            mapping("/static/", root),
            mapping_with("/through/", root, through),
        ]
    });
    let outside = site.root.parent().unwrap().join("app");
    create_dir_all(&outside).unwrap();
    write(outside.join("a.css"), "body {}").unwrap();
    // As `collectstatic --link` makes them.
    symlink(outside.join("a.css"), site.root.join("a.css")).unwrap();
    symlink("../app", site.root.join("app")).unwrap();
    for path in ["a.css", "app/a.css", "app", "app/"] {
        for (prefix, status) in [("/static/", 404), ("/through/", 0)] {
            let told = site.files.complaints.links_left_out();
            assert_eq!(site.status(&format!("{prefix}{path}")), status, "{path}");
            // The first one has been written.
            let more = site.files.complaints.links_left_out() - told;
            assert_eq!(more, u64::from((prefix, path) != ("/static/", "a.css")));
        }
    }
    let told = site.files.complaints.links_left_out();
    for path in ["none", "css", "css/a%20b.css", ".env", "../a.css"] {
        site.status(&format!("/static/{path}"));
    }
    assert_eq!(site.files.complaints.links_left_out(), told);
}

#[test]
fn a_folder_reached_by_a_link_is_the_one_that_the_link_leads_to() {
    let mut site = site(|root| {
        let current = root.join("current");
        for release in ["1", "2"] {
            let folder = root.join(release);
            create_dir_all(&folder).unwrap();
            write(folder.join("v.txt"), format!("release {release}")).unwrap();
            symlink(folder.join("v.txt"), folder.join("link.txt")).unwrap();
        }
        symlink("1", &current).unwrap();
        vec![mapping("/", &current)]
    });
    assert_eq!(site.get("/v.txt", "").text(), "release 1");
    assert_eq!(site.get("/link.txt", "").text(), "release 1");
    symlink("2", site.root.join("new")).unwrap();
    rename(site.root.join("new"), site.root.join("current")).unwrap();
    site.now += SECOND;
    assert_eq!(site.get("/v.txt", "").text(), "release 2");
    assert_eq!(site.get("/link.txt", "").text(), "release 2");
    // Where the way leads nowhere for a moment, the folder stays.
    remove_file(site.root.join("current")).unwrap();
    site.now += SECOND;
    assert_eq!(site.get("/v.txt", "").text(), "release 2");
}

#[test]
fn prefixes_match_however_they_are_encoded() {
    let mut site = site(|root| {
        let prefixes = [
            "/médias/",
            "/my files/",
            "/~joe/",
            "/a%20b/",
            "/my files/css/",
        ];
        let mut mappings: Vec<_> = prefixes
            .iter()
            .map(|prefix| mapping(prefix, root))
            .collect();
        mappings[4].1.path = root.join("css");
        mappings
    });
    for path in [
        "/m%C3%A9dias/data.bin",
        "/m%c3%a9dias/data.bin",
        "/my%20files/data.bin",
        "/%6Dy%20files/data.bin",
        "/~joe/data.bin",
        "/%7Ejoe/data.bin",
        "/a%20b/data.bin",
        "/my%20files/css/a%20b.css",
    ] {
        assert_eq!(site.status(path), 200, "{path}");
    }
    assert_eq!(site.status("/my+files/data.bin"), 0);
}

#[test]
fn the_prefix_of_the_application_may_have_been_removed() {
    let mut site = site(|root| {
        vec![
            mapping("/static/", root),
            mapping("/my shop/whole/", root),
            mapping_with("/", &root.join("docs"), |mapping| {
                mapping.fallthrough = true
            }),
        ]
    });
    site.files.prefix = "/my shop".into();
    for (path, status) in [
        ("/static/data.bin", 200),
        ("/my%20shop/static/data.bin", 200),
        ("/my%20shop/static/none", 404),
        ("/my%20shop/whole/data.bin", 200),
        ("/whole/data.bin", 0),
        ("/my%20shop/index.html", 200),
        ("/my%20shop/", 200),
        ("/my%20shop", 0),
        ("/my%20shop2/index.html", 0),
        ("/index.html", 200),
    ] {
        assert_eq!(site.status(path), status, "{path}");
    }
    // That of a proxy takes the place of the key.
    for (told, path, status) in [
        ("/tell me", "/tell%20me/static/data.bin", 200),
        ("/tell me", "/tell%20me/static/none", 404),
        ("/tell me", "/static/data.bin", 200),
        ("/tell me", "/tell%20me", 0),
        ("/tell me", "/my%20shop/static/data.bin", 0),
        ("/tell me", "/my%20shop/whole/data.bin", 200),
        ("", "/my%20shop/static/data.bin", 0),
    ] {
        site.told = Some(told);
        assert_eq!(site.status(path), status, "{told} {path}");
    }
}

#[test]
fn a_folder_has_an_index() {
    let mut site = plain();
    assert_eq!(site.get("/static/docs/", "").text(), "index");
    assert_eq!(
        site.get("/static/docs/", "").value("Content-Type"),
        "text/html; charset=utf-8"
    );
    for (path, location) in [
        ("/static/docs", "./docs/"),
        ("/static/docs?a=%2F", "./docs/?a=%2F"),
    ] {
        let moved = site.get(path, "");
        assert_eq!((moved.status, moved.value("Location")), (301, location));
    }
    // Without an index there is nothing to be moved to.
    assert_eq!(site.status("/static/css"), 404);
    let mut site = self::site(|root| {
        vec![mapping_with("/static/", root, |mapping| {
            mapping.index = None
        })]
    });
    assert_eq!(site.status("/static/docs/"), 404);
    assert_eq!(site.status("/static/docs"), 404);
    assert_eq!(site.status("/static/docs/index.html"), 200);
}

#[test]
fn the_handler_answers_what_falls_through() {
    let mut site = site(|root| {
        vec![mapping_with("/", &root.join("docs"), |mapping| {
            mapping.fallthrough = true
        })]
    });
    assert_eq!(site.get("/", "").text(), "index");
    assert_eq!(site.status("/index.html"), 200);
    for path in [
        "/api/users",
        "/api/",
        "/index.html/",
        "/..",
        "/a//b",
        "/.env",
        "/x%2Fy",
    ] {
        assert_eq!(site.status(path), 0, "{path}");
    }
    assert_eq!(site.ask("POST", "/", "").status, 0);
    assert_eq!(site.ask("OPTIONS", "*", "").status, 0);
}

#[test]
fn ranges() {
    let mut site = plain();
    let large = large();
    for (range, content_range, from, to) in [
        ("0-0", "bytes 0-0/100000", 0, 1),
        ("99990-", "bytes 99990-99999/100000", 99990, 100_000),
        ("-5", "bytes 99995-99999/100000", 99995, 100_000),
        ("10-200000", "bytes 10-99999/100000", 10, 100_000),
        ("10-19,15-30", "bytes 10-30/100000", 10, 31),
    ] {
        for path in ["/static/large.txt", "/static/copy.txt"] {
            write(site.root.join("copy.txt"), &large[..]).unwrap();
            let part = site.get(path, &format!("Range: bytes={range}\r\n"));
            assert_eq!(
                (part.status, part.value("Content-Range")),
                (206, content_range)
            );
            assert!(part.body == large[from..to], "{range}");
            assert_eq!(part.value("Content-Type"), "text/plain; charset=utf-8");
        }
    }
    let beyond = site.get("/static/data.bin", "Range: bytes=256-\r\n");
    assert_eq!(
        (beyond.status, beyond.value("Content-Range")),
        (416, "bytes */256")
    );
    let whole = site.get("/static/data.bin", "Range: lines=0-1\r\n");
    assert_eq!((whole.status, whole.value("Content-Range")), (200, ""));
    let doubled = "Range: bytes=0-1\r\nRange: bytes=3-4\r\n";
    assert_eq!(site.get("/static/data.bin", doubled).status, 200);
    let head = site.ask("HEAD", "/static/large.txt", "Range: bytes=0-0\r\n");
    assert_eq!((head.status, head.value("Content-Length")), (200, "100000"));
}

#[test]
fn several_ranges_in_one_response() {
    let mut site = plain();
    // From memory, and by the kernel.
    for (path, content, parts) in [
        ("/static/data.bin", (0..=255).collect::<Vec<u8>>(), 0),
        ("/static/large.txt", large(), 4),
    ] {
        let answer = site.get(path, "Range: bytes=200-209, 0-4,-1\r\n");
        assert_eq!((answer.status, answer.parts), (206, parts));
        let boundary = answer.value("Content-Type");
        let boundary = boundary
            .strip_prefix("multipart/byteranges; boundary=")
            .unwrap();
        let (size, last) = (content.len(), content.len() - 1);
        let kind = kinds::of(path.as_bytes()).content_type;
        let mut wanted = Vec::new();
        for (first, last) in [(200, 209), (0, 4), (last, last)] {
            let head = format!(
                "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
            );
            wanted.extend_from_slice(head.as_bytes());
            wanted.extend_from_slice(&content[first..=last]);
        }
        wanted.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(answer.body == wanted);
    }
}

#[test]
fn conditions_hold() {
    let mut site = plain();
    // The second of its date is over.
    change_time(&site.root.join("data.bin"), -10);
    let whole = site.get("/static/data.bin", "");
    let (etag, date) = (whole.value("ETag"), whole.value("Last-Modified"));
    let long_ago = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (fields, status) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (
            format!("If-None-Match: \"x\"\r\nIf-None-Match: W/{etag}\r\n"),
            304,
        ),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        (format!("If-Modified-Since: {long_ago}\r\n"), 200),
        (format!("If-Match: {etag}\r\n"), 200),
        ("If-Match: \"x\"\r\n".into(), 412),
        (format!("If-Unmodified-Since: {long_ago}\r\n"), 412),
        (format!("Range: bytes=0-1\r\nIf-Range: {etag}\r\n"), 206),
        (format!("Range: bytes=0-1\r\nIf-Range: W/{etag}\r\n"), 200),
        (format!("Range: bytes=0-1\r\nIf-Range: {date}\r\n"), 206),
        (format!("Range: bytes=0-1\r\nIf-Range: {long_ago}\r\n"), 200),
        (
            format!("Range: bytes=0-1\r\nIf-None-Match: {etag}\r\n"),
            304,
        ),
        (format!("Range: bytes=999-\r\nIf-Match: {etag}\r\n"), 416),
        ("Range: bytes=999-\r\nIf-Match: \"x\"\r\n".into(), 412),
    ] {
        let answer = site.get("/static/data.bin", &fields);
        assert_eq!(answer.status, status, "{fields}");
        if matches!(status, 200 | 206 | 304) {
            assert_eq!(answer.value("ETag"), etag);
        }
        assert!(status != 304 || answer.body.is_empty());
    }
    // What is not there has no version.
    assert_eq!(site.get("/static/none", "If-Match: *\r\n").status, 404);
}

#[test]
fn compressed_files_beside_the_original() {
    let mut site = site(|root| {
        for name in ["a.js", "b.js", "c.svgz"] {
            write(root.join(name), "plain").unwrap();
        }
        for (name, content) in [
            ("a.js.br", "br"),
            ("a.js.gz", "gzip..."),
            ("c.svgz.gz", "gzip"),
        ] {
            write(root.join(name), content).unwrap();
        }
        let all = |mapping: &mut Mapping| mapping.precompressed = Coding::ALL.to_vec();
        vec![
            mapping_with("/s/", root, all),
            mapping_with("/single.js", &root.join("a.js"), all),
        ]
    });
    let mut tags = Vec::new();
    for (accepted, coding, content) in [
        ("", "", "plain"),
        ("Accept-Encoding: gzip, deflate, br, zstd\r\n", "br", "br"),
        ("Accept-Encoding: gzip, zstd\r\n", "gzip", "gzip..."),
        ("Accept-Encoding: zstd\r\n", "", "plain"),
        (
            "Accept-Encoding: br;q=0\r\nAccept-Encoding: gzip;q=0.1\r\n",
            "gzip",
            "gzip...",
        ),
    ] {
        for path in ["/s/a.js", "/single.js"] {
            let answer = site.get(path, accepted);
            assert_eq!(
                (answer.text(), answer.value("Content-Encoding")),
                (content, coding)
            );
            assert_eq!(answer.value("Vary"), "Accept-Encoding");
            assert_eq!(
                answer.value("Content-Type"),
                "text/javascript; charset=utf-8"
            );
            tags.push(answer.value("ETag").to_owned());
            let etag = answer.value("ETag");
            let same = site.get(path, &format!("{accepted}If-None-Match: {etag}\r\n"));
            assert_eq!((same.status, same.value("Vary")), (304, "Accept-Encoding"));
        }
    }
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), 3, "{tags:?}");
    // A range is one of the variant.
    let part = site.get("/s/a.js", "Accept-Encoding: gzip\r\nRange: bytes=1-2\r\n");
    assert_eq!((part.status, part.text()), (206, "zi"));
    assert_eq!(part.value("Content-Range"), "bytes 1-2/7");
    assert_eq!(part.value("Content-Encoding"), "gzip");
    // Nothing beside it: nothing varies.
    let alone = site.get("/s/b.js", "Accept-Encoding: br\r\n");
    assert_eq!((alone.text(), alone.value("Vary")), ("plain", ""));
    // A format that is compressed by itself.
    let svgz = site.get("/s/c.svgz", "Accept-Encoding: br\r\n");
    assert_eq!(
        (svgz.text(), svgz.value("Content-Encoding")),
        ("plain", "gzip")
    );
    assert_eq!(svgz.value("Content-Type"), "image/svg+xml");
    // An original that is newer is no longer what was compressed.
    change_time(&site.root.join("a.js"), 100);
    site.now += SECOND;
    let newer = site.get("/s/a.js", "Accept-Encoding: br\r\n");
    assert_eq!(
        (newer.text(), newer.value("Content-Encoding")),
        ("plain", "")
    );
    // Its time is in the future, where no response may place it.
    assert_eq!(newer.value("Last-Modified"), "");
}

#[test]
fn configured_fields_are_added() {
    let mut site = site(|root| {
        let headers = [
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Type", "a/b"),
        ];
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        vec![mapping_with("/s/", root, |mapping| {
            mapping.max_age = Some(3600);
            mapping.immutable = true;
            mapping.headers = headers.map(own).into();
        })]
    });
    let etag = site.get("/s/data.bin", "").value("ETag").to_owned();
    for (fields, status) in [
        (String::new(), 200),
        ("Range: bytes=0-1\r\n".into(), 206),
        (format!("If-None-Match: {etag}\r\n"), 304),
    ] {
        let answer = site.get("/s/data.bin", &fields);
        assert_eq!(answer.status, status);
        assert_eq!(answer.value("Cache-Control"), "max-age=3600, immutable");
        assert_eq!(answer.value("X-Content-Type-Options"), "nosniff");
        let kind = if status == 304 { "" } else { "a/b" };
        assert_eq!(answer.value("Content-Type"), kind);
    }
    let missing = site.get("/s/none", "");
    assert_eq!((missing.status, missing.value("Cache-Control")), (404, ""));
}

#[test]
fn a_change_is_seen_within_a_second() {
    let mut site = plain();
    let path = site.root.join("css/a b.css");
    let url = "/static/css/a%20b.css";
    let first = site.get(url, "").value("ETag").to_owned();
    write(&path, "p {}").unwrap();
    // From memory, without a look at the file.
    assert_eq!(site.get(url, "").text(), "body {}");
    site.now += SECOND;
    let second = site.get(url, "");
    assert_eq!(second.text(), "p {}");
    assert_ne!(second.value("ETag"), first);
    assert_eq!(
        site.get(url, &format!("If-None-Match: {first}\r\n")).status,
        200
    );
    // Another file in its place, a small one that grows, and none.
    write(site.root.join("new"), large()).unwrap();
    rename(site.root.join("new"), &path).unwrap();
    site.now += SECOND;
    assert!(site.get(url, "").body == large());
    // Of one that is held open, the kernel tells at once.
    remove_file(&path).unwrap();
    assert_eq!(site.status(url), 404);
    // What was not there is looked for each time.
    write(&path, "back").unwrap();
    assert_eq!(site.get(url, "").text(), "back");
}

#[test]
fn a_large_file_that_is_changed_in_place_is_never_sent_with_an_old_head() {
    let mut site = plain();
    let path = site.root.join("large.txt");
    let url = "/static/large.txt";
    let first = site.get(url, "").value("ETag").to_owned();
    for (n, length) in [(1, 80_000), (2, 120_000), (3, 120_000)] {
        let content = vec![b'0' + n; length];
        write(&path, &content).unwrap();
        let answer = site.get(url, "");
        // Its length was checked, too.
        assert!(answer.body == content, "{n}");
        assert_ne!(answer.value("ETag"), first, "{n}");
    }
    // Small now, and in memory.
    write(&path, "small").unwrap();
    assert_eq!(site.get(url, "").text(), "small");
}

#[test]
fn what_may_change_without_a_sign_is_not_kept() {
    let mut site = plain();
    site.files.racy = RACY;
    let path = site.root.join("css/a b.css");
    assert_eq!(site.get("/static/css/a%20b.css", "").text(), "body {}");
    write(&path, "p {}").unwrap();
    assert_eq!(site.get("/static/css/a%20b.css", "").text(), "p {}");
}

#[test]
fn memory_is_bounded() {
    let mut site = plain();
    let content = vec![b'x'; 60_000];
    for n in 0..400 {
        let name = format!("{n}.bin");
        write(site.root.join(&name), &content).unwrap();
        assert_eq!(site.get(&format!("/static/{name}"), "").body.len(), 60_000);
        // One that is asked for again and again stays.
        assert_eq!(site.status("/static/data.bin"), 200);
    }
    let (entries, bytes, open) = site.files.cache.size();
    assert!(
        entries > 10 && bytes <= 16 * 1024 * 1024,
        "{entries} {bytes}"
    );
    assert_eq!(open, 0);
    for n in 0..100 {
        let name = format!("{n}.large");
        write(site.root.join(&name), large()).unwrap();
        assert_eq!(site.status(&format!("/static/{name}")), 200);
    }
    let (_, bytes, open) = site.files.cache.size();
    assert!(
        open > 0 && open <= 32 && bytes <= 16 * 1024 * 1024,
        "{open} {bytes}"
    );
    for n in 0..3000 {
        write(site.root.join("css/small"), format!("{n}")).unwrap();
        rename(
            site.root.join("css/small"),
            site.root.join(format!("css/{n}")),
        )
        .unwrap();
        assert_eq!(site.status(&format!("/static/css/{n}")), 200);
    }
    assert!(site.files.cache.size().0 <= 1000);
    assert!(read(site.root.join("data.bin")).is_ok());
}

#[test]
fn folders_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nothing");
    for (prefix, part) in [
        ("/a/", "nothing: No such file"),
        ("a/", "must begin with a slash"),
    ] {
        let error = Files::new(&[mapping(prefix, &missing)].into(), "", "www".into()).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    // A single file may come later.
    let single = vec![mapping("/a", &missing)];
    assert!(Files::new(&single.into_iter().collect(), "", "www".into()).is_ok());
}

/// Takes the mapping whose number the request names.
#[derive(Debug)]
struct ByField;

impl Chooser for ByField {
    fn mapping(&mut self, request: Request<'_>, _: &Origin) -> Option<usize> {
        str::from_utf8(request.field(b"x-site")?).ok()?.parse().ok()
    }
}

#[test]
fn a_chooser_tells_which_of_several_mappings_with_one_prefix_is_meant() {
    let mut site = plain();
    let (css, docs) = (site.root.join("css"), site.root.join("docs"));
    let mappings = [mapping("/s/", &css), mapping("/s/", &docs)];
    site.files = Files::chosen(&mappings, Box::new(ByField), "www".into()).unwrap();
    for (path, number, status) in [
        ("/s/a%20b.css", "0", 200),
        ("/s/a%20b.css", "1", 404),
        ("/s/", "0", 404),
        ("/s/", "1", 200),
        ("/x/..//s/./", "1", 200),
        // The chooser knows more than the path: what it chose answers.
        ("/other", "1", 404),
        ("/s/", "none", 0),
    ] {
        let answer = site.ask("GET", path, &format!("X-Site: {number}\r\n"));
        assert_eq!(answer.status, status, "{path} {number}");
    }
}
