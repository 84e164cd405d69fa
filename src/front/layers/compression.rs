//! `compress`: whether a response is compressed, and with what.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use brotli::CompressorWriter;
use flate2::Compression;
use flate2::write::GzEncoder;
use preforkd_http::{Coder, Head, Request, choose_coding};
use preforkd_worker::settings::Coding;
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder as ZstdEncoder;

/// A body that is smaller gains nothing.
const SMALLEST: u64 = 1024;
/// So many responses are compressed at a time. Each takes up to half a megabyte; the others go out as they are.
const MOST: usize = 256;
/// The logarithm of how far back a repetition is found, which is what a coder needs memory for.
const WINDOW: u32 = 17;
/// How much is done for a smaller result: what costs about as much as it does for nginx and Caddy.
const GZIP_LEVEL: u32 = 5;
const BROTLI_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// What the coder of brotli collects before it works.
const BROTLI_BUFFER: usize = 4096;

/// What a client understands.
#[derive(Debug, Default)]
pub struct Asked {
    /// The coding that it likes best.
    coding: Option<Coding>,
    /// The tags for which it wants no new copy, if one of them is weak.
    weak_tags: Vec<u8>,
}

impl Asked {
    /// Reads what the request says.
    pub fn read(request: Request<'_>, codings: &[Coding]) -> Self {
        let values = |name: &'static [u8]| {
            let fields = request.fields();
            fields
                .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let accepted: Vec<&[u8]> = values(b"accept-encoding").collect();
        let tags = values(b"if-none-match").filter(|value| value.windows(2).any(|w| w == b"W/"));
        Self {
            coding: choose_coding(&accepted, codings.iter().copied()),
            weak_tags: tags.collect::<Vec<_>>().join(&b","[..]),
        }
    }
}

/// What becomes of a response.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It goes out as it is, whatever a client accepts.
    Never,
    /// It would be compressed for another client.
    Varies,
    /// It is compressed.
    With(Coding),
}

/// Compressions that go on.
#[derive(Debug, Default, Clone)]
pub struct Running(Arc<AtomicUsize>);

impl Running {
    /// The coder for the body of a response, which its head tells of from now on; none if it goes out as it is.
    pub fn coder(
        &self,
        asked: &Asked,
        head: &mut Head,
        length: Option<u64>,
    ) -> Option<Box<dyn Coder>> {
        if head.status() == 304 {
            not_modified(asked, head);
            return None;
        }
        let coding = match verdict(asked, head, length) {
            Verdict::Never => return None,
            Verdict::Varies => {
                vary(head);
                return None;
            }
            Verdict::With(coding) => coding,
        };
        vary(head);
        if self.0.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let place = Place(self.0.clone());
        let encoder = Encoder::new(coding).ok()?;
        let _ = head.add(b"Content-Encoding", coding.name().as_bytes());
        if let Some(tag) = head.get(b"etag").filter(|tag| tag.first() == Some(&b'"')) {
            let weak = [b"W/", tag].concat();
            let _ = head.set(b"ETag", &weak);
        }
        // These are about the bytes of the other form (RFC 9110 section 14.3, RFC 9530).
        for name in [
            "Accept-Ranges",
            "Content-MD5",
            "Digest",
            "Content-Digest",
            "Repr-Digest",
        ] {
            head.remove(name.as_bytes());
        }
        Some(Box::new(Compressor {
            encoder,
            _place: place,
        }))
    }
}

/// Gives the tag back that the client has: it may have got it with a compressed response (RFC 9110 section 15.4.5).
fn not_modified(asked: &Asked, head: &mut Head) {
    vary(head);
    if let Some(tag) = head.get(b"etag").filter(|tag| tag.first() == Some(&b'"')) {
        let weak = [b"W/", tag].concat();
        if asked.weak_tags.windows(weak.len()).any(|tag| tag == weak) {
            let _ = head.set(b"ETag", &weak);
        }
    }
}

fn verdict(asked: &Asked, head: &Head, length: Option<u64>) -> Verdict {
    let status = head.status();
    let is_whole = !(204..=206).contains(&status) && head.get(b"content-range").is_none();
    let is_encoded = head
        .get(b"content-encoding")
        .is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    let mut fields = head.fields();
    let stays = fields.any(|(name, value)| {
        name.eq_ignore_ascii_case(b"cache-control") && lists(value, b"no-transform")
    });
    let content_type = head.get(b"content-type").unwrap_or_default();
    if !is_whole
        || is_encoded
        || stays
        || length.is_some_and(|length| length < SMALLEST)
        || !is_compressible(content_type)
    {
        return Verdict::Never;
    }
    asked.coding.map_or(Verdict::Varies, Verdict::With)
}

/// Whether a list has this element.
fn lists(value: &[u8], element: &[u8]) -> bool {
    let mut elements = value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    elements.any(|other| other.eq_ignore_ascii_case(element))
}

/// Says that another client may get another form.
fn vary(head: &mut Head) {
    let is_said = head.fields().any(|(name, value)| {
        name.eq_ignore_ascii_case(b"vary")
            && (lists(value, b"accept-encoding") || lists(value, b"*"))
    });
    if !is_said {
        let _ = head.add(b"Vary", b"Accept-Encoding");
    }
}

/// Whether a type is text, or a format that is not compressed by itself.
fn is_compressible(content_type: &[u8]) -> bool {
    const TYPES: [&str; 14] = [
        "application/graphql",
        "application/javascript",
        "application/json",
        "application/rtf",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/x-javascript",
        "application/x-ndjson",
        "application/xml",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/svg+xml",
        "image/x-icon",
    ];
    let kind = content_type.split(|&b| b == b';').next();
    let kind = kind.unwrap_or_default().trim_ascii().to_ascii_lowercase();
    kind.starts_with(b"text/")
        || kind.ends_with(b"+json")
        || kind.ends_with(b"+xml")
        || TYPES.iter().any(|known| known.as_bytes() == kind)
}

/// The place of a compression among those that go on.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Compresses a body.
struct Compressor {
    encoder: Encoder,
    _place: Place,
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    /// None when it has ended.
    Brotli(Option<Box<CompressorWriter<Vec<u8>>>>, Vec<u8>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        let out = Vec::new();
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(out, Compression::new(GZIP_LEVEL))),
            Coding::Br => {
                let encoder = CompressorWriter::new(out, BROTLI_BUFFER, BROTLI_LEVEL, WINDOW);
                Self::Brotli(Some(Box::new(encoder)), Vec::new())
            }
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(out, ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW))?;
                Self::Zstd(encoder)
            }
        })
    }

    fn made(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(Some(encoder), _) => encoder.get_mut(),
            Self::Brotli(None, rest) => rest,
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }
}

impl Coder for Compressor {
    fn write(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let written = match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.write_all(data),
            Encoder::Brotli(Some(encoder), _) => encoder.write_all(data),
            Encoder::Brotli(None, _) => Err(io::ErrorKind::BrokenPipe.into()),
            Encoder::Zstd(encoder) => encoder.write_all(data),
        };
        out.append(self.encoder.made());
        written
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let flushed = match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Brotli(Some(encoder), _) => encoder.flush(),
            Encoder::Brotli(None, _) => Ok(()),
            Encoder::Zstd(encoder) => encoder.flush(),
        };
        out.append(self.encoder.made());
        flushed
    }

    fn end(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let ended = match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.try_finish(),
            Encoder::Brotli(encoder, rest) => {
                if let Some(encoder) = encoder.take() {
                    *rest = encoder.into_inner();
                }
                Ok(())
            }
            Encoder::Zstd(encoder) => encoder.do_finish(),
        };
        out.append(self.encoder.made());
        ended
    }
}
