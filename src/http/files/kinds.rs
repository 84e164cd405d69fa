//! Content types by the endings of names.

use std::borrow::Cow;
use std::path::Path;

/// What a name says about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    /// The content type.
    pub content_type: Cow<'static, str>,
    /// The content coding that belongs to the format itself.
    pub encoding: Option<&'static str>,
}

/// Where the table of `mime_guess` has nothing, or something that browsers refuse or that was replaced since.
const OTHERS: [(&str, &str); 16] = [
    // RFC 9239.
    ("cjs", "text/javascript"),
    ("mjs", "text/javascript"),
    // Source maps are JSON (ECMA-426).
    ("map", "application/json"),
    // RFC 8081.
    ("otf", "font/otf"),
    ("woff", "font/woff"),
    // RFC 9659, and the registry of media types.
    ("zst", "application/zstd"),
    ("tgz", "application/gzip"),
    ("m4a", "audio/mp4"),
    ("ts", "video/mp2t"),
    ("mts", "video/mp2t"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("stl", "model/stl"),
    ("obj", "model/obj"),
    ("usdz", "model/vnd.usdz+zip"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
];

/// Of a file of this name.
pub(super) fn of(name: &[u8]) -> Kind {
    let name = String::from_utf8_lossy(name);
    let path = Path::new(&*name);
    let ending = path
        .extension()
        .map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    let ending = ending.as_deref().unwrap_or_default();
    let other = OTHERS.iter().find(|(known, _)| *known == ending);
    let essence = match other {
        Some((_, essence)) => essence,
        None => mime_guess::from_path(path)
            .first_raw()
            .unwrap_or("application/octet-stream"),
    };
    Kind {
        content_type: match is_text(essence) {
            true => format!("{essence}; charset=utf-8").into(),
            false => essence.into(),
        },
        encoding: (ending == "svgz").then_some("gzip"),
    }
}

/// Whether a client may have to guess how its characters are encoded. What is XML by its name says that itself.
fn is_text(essence: &str) -> bool {
    essence.starts_with("text/")
        || matches!(
            essence,
            "application/javascript"
                | "application/json"
                | "application/manifest+json"
                | "application/yaml"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_kinds() {
        for (name, content_type) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.HTM", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.cjs", "text/javascript; charset=utf-8"),
            ("a.min.JS", "text/javascript; charset=utf-8"),
            ("a.json", "application/json; charset=utf-8"),
            ("a.js.map", "application/json; charset=utf-8"),
            (
                "site.webmanifest",
                "application/manifest+json; charset=utf-8",
            ),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.csv", "text/csv; charset=utf-8"),
            ("a.md", "text/markdown; charset=utf-8"),
            ("a.xml", "text/xml; charset=utf-8"),
            ("a.vtt", "text/vtt; charset=utf-8"),
            ("a.svg", "image/svg+xml"),
            ("a.svgz", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.woff", "font/woff"),
            ("a.woff2", "font/woff2"),
            ("a.ttf", "font/ttf"),
            ("a.otf", "font/otf"),
            ("a.png", "image/png"),
            ("a.jpg", "image/jpeg"),
            ("a.jpeg", "image/jpeg"),
            ("a.gif", "image/gif"),
            ("a.webp", "image/webp"),
            ("a.avif", "image/avif"),
            ("a.jxl", "image/jxl"),
            ("favicon.ico", "image/x-icon"),
            ("a.mp4", "video/mp4"),
            ("a.webm", "video/webm"),
            ("a.mp3", "audio/mpeg"),
            ("a.m4a", "audio/mp4"),
            ("a.ts", "video/mp2t"),
            ("a.pdf", "application/pdf"),
            ("a.zip", "application/zip"),
            ("a.tar.gz", "application/gzip"),
            ("a.js.br", "application/octet-stream"),
            ("a.js.zst", "application/zstd"),
            ("a.bin", "application/octet-stream"),
            ("a.unknown", "application/octet-stream"),
            ("LICENSE", "application/octet-stream"),
            ("\u{fc}.css", "text/css; charset=utf-8"),
        ] {
            assert_eq!(of(name.as_bytes()).content_type, content_type, "{name}");
        }
        assert_eq!(of(b"\xff.css").content_type, "text/css; charset=utf-8");
    }

    #[test]
    fn only_svgz_is_encoded_by_itself() {
        assert_eq!(of(b"a.svgz").encoding, Some("gzip"));
        assert_eq!(of(b"a.SVGZ").encoding, Some("gzip"));
        assert_eq!(of(b"a.svg").encoding, None);
        assert_eq!(of(b"a.tar.gz").encoding, None);
    }
}
