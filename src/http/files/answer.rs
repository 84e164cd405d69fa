//! The response to a request for a file.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use super::asked::{Asked, Single};
use super::cache::{Content, Kept, Variant};
use super::conditions::{self, Verdict};
use super::encoding;
use super::mapping::Fields;
use super::ranges::{self, Multipart, Range, Wanted};
use crate::exchange::{Part, Piece, Source};
use crate::message::request::Request;
use crate::message::response::{self, Response};

/// Content in memory is copied behind the head of its response up to this size, as a second place to send from costs more.
const COPIED: u64 = 4 * 1024;

/// What was found for a request that the application does not get.
#[derive(Debug)]
pub(crate) struct Found(pub(super) What);

#[derive(Debug)]
pub(super) enum What {
    File(Arc<Kept>, Arc<Fields>),
    /// The path names a folder and lacks its slash.
    Redirect,
    /// Nothing to send; the status says why.
    Nothing(u16),
}

impl Found {
    /// Answers the request. What is left of the body is the part.
    pub fn answer(self, request: Request<'_>, mut response: Response) -> (Response, Option<Part>) {
        let part = match self.0 {
            What::File(kept, fields) => send(&kept, &fields, request, &mut response),
            What::Redirect => {
                let location = with_slash(request);
                let head = [(&b"Location"[..], &location[..])];
                short(&mut response, 301, &head);
                None
            }
            What::Nothing(405) => {
                short(&mut response, 405, &[(b"Allow", b"GET, HEAD")]);
                None
            }
            What::Nothing(status) => {
                let text = format!("{status} {}\n", response::phrase(status));
                response.fail(status, &text);
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

fn send(
    kept: &Kept,
    fields: &Fields,
    request: Request<'_>,
    response: &mut Response,
) -> Option<Part> {
    let asked = match request.method() {
        b"GET" | b"HEAD" => Asked::read(request),
        // An application has answered it with a file.
        _ => Asked::default(),
    };
    let own_type = own_type(response);
    let there = kept.encoded.iter().filter_map(|variant| variant.coding);
    let coding = match kept.encoded.is_empty() {
        true => None,
        false => encoding::choose(&asked.encodings, there),
    };
    let variant = kept.variant(coding).unwrap_or(&kept.plain);
    let common = Common {
        variant,
        fields,
        varies: !kept.encoded.is_empty(),
        own_type,
    };
    match conditions::check(&asked, &variant.validators) {
        Verdict::Proceed => {}
        Verdict::NotModified => {
            common.begin(response, 304);
            response.finish(None);
            response.end();
            return None;
        }
        Verdict::Failed => {
            short(response, 412, &[]);
            return None;
        }
    }
    let wanted = match asked.range {
        // A range means something for GET only (RFC 9110 section 14.2).
        Single::Once(range)
            if request.method() == b"GET"
                && conditions::is_current(&asked, &variant.validators, SystemTime::now()) =>
        {
            ranges::parse(range, variant.size)
        }
        _ => Wanted::Whole,
    };
    let whole = Range {
        first: 0,
        last: variant.size.saturating_sub(1),
    };
    match wanted {
        Wanted::Whole => {
            common.begin(response, 200);
            let _ = response.field(b"Accept-Ranges", b"bytes");
            common.finish(response, None, variant.size);
            match variant.size {
                0 => one(variant, None, response),
                _ => one(variant, Some(whole), response),
            }
        }
        Wanted::One(range) => {
            common.begin(response, 206);
            let Range { first, last } = range;
            let content_range = format!("bytes {first}-{last}/{}", variant.size);
            let _ = response.field(b"Content-Range", content_range.as_bytes());
            common.finish(response, None, range.length());
            one(variant, Some(range), response)
        }
        Wanted::Several(ranges) => {
            let multipart = Multipart::new(ranges, common.content_type(), variant.size);
            common.begin(response, 206);
            common.finish(response, Some(&multipart.content_type), multipart.length());
            several(variant, multipart, response)
        }
        Wanted::Nothing => {
            let range = format!("bytes */{}", variant.size);
            short(response, 416, &[(b"Content-Range", range.as_bytes())]);
            None
        }
    }
}

/// What all responses with a variant have in common.
struct Common<'a> {
    variant: &'a Variant,
    fields: &'a Fields,
    varies: bool,
    /// The type that an application has said.
    own_type: Option<String>,
}

// Our own status, names and values are valid, and those of the configuration were checked.
impl Common<'_> {
    fn begin(&self, response: &mut Response, status: u16) {
        begin(response, status);
        let validators = &self.variant.validators;
        let _ = response.field(b"ETag", validators.etag.as_bytes());
        if let Some(date) = &validators.last_modified {
            let _ = response.field(b"Last-Modified", date.as_bytes());
        }
        let vary = match self.varies {
            true => Some(&self.fields.vary_encoded),
            false => self.fields.vary.as_ref(),
        };
        if let Some(vary) = vary {
            let _ = response.field(b"Vary", vary.as_bytes());
        }
        if let Some(cache_control) = &self.fields.cache_control {
            let _ = response.field(b"Cache-Control", cache_control.as_bytes());
        }
        for (name, value) in &self.fields.others {
            let _ = response.field(name.as_bytes(), value.as_bytes());
        }
    }

    fn finish(&self, response: &mut Response, content_type: Option<&str>, length: u64) {
        let content_type = content_type.unwrap_or(self.content_type());
        let _ = response.field(b"Content-Type", content_type.as_bytes());
        if let Some(encoding) = self.variant.kind.encoding {
            let _ = response.field(b"Content-Encoding", encoding.as_bytes());
        }
        let _ = response.field(b"Content-Length", length.to_string().as_bytes());
        response.finish(None);
    }

    fn content_type(&self) -> &str {
        let own = self.own_type.as_deref();
        let own = own.or(self.fields.content_type.as_deref());
        own.unwrap_or(&self.variant.kind.content_type)
    }
}

/// One range as the body, or nothing.
fn one(variant: &Variant, range: Option<Range>, response: &mut Response) -> Option<Part> {
    if let Some(range) = range
        && !response.is_bodyless()
    {
        let is_copied = range.length() <= COPIED || response.is_coded();
        let source = match &variant.content {
            Content::Memory(content) if is_copied => {
                response.write(slice(content, range));
                None
            }
            Content::Memory(content) => Some(Source::Memory(content.clone())),
            Content::File(file) => Some(Source::File(file.clone())),
        };
        if let Some(source) = source {
            return Some(Part {
                source,
                offset: range.first,
                length: range.length(),
                then: VecDeque::new(),
            });
        }
    }
    response.end();
    None
}

/// Several ranges with the text between them.
fn several(variant: &Variant, multipart: Multipart, response: &mut Response) -> Option<Part> {
    let Multipart { parts, end, .. } = multipart;
    let file = match &variant.content {
        Content::Memory(content) => {
            for (text, range) in parts {
                response.write(&text);
                response.write(slice(content, range));
            }
            response.write(&end);
            response.end();
            return None;
        }
        Content::File(file) => file.clone(),
    };
    let piece = |(text, range): (Vec<u8>, Range)| Piece {
        text,
        offset: range.first,
        length: range.length(),
    };
    let mut then: VecDeque<Piece> = parts.into_iter().map(piece).collect();
    then.push_back(Piece {
        text: end,
        offset: 0,
        length: 0,
    });
    let first = then.pop_front()?;
    response.write(&first.text);
    Some(Part {
        source: Source::File(file),
        offset: first.offset,
        length: first.length,
        then,
    })
}

fn slice(content: &[u8], range: Range) -> &[u8] {
    let (first, last) = (range.first as usize, range.last as usize);
    content.get(first..=last).unwrap_or_default()
}

/// The way from a path to the same with a slash, relative to it: whatever stands in front of this server may have cut a prefix off.
fn with_slash(request: Request<'_>) -> Vec<u8> {
    let path = request.path();
    let segment = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let mut location = [b"./", segment, b"/"].concat();
    if !request.query().is_empty() {
        location.push(b'?');
        location.extend_from_slice(request.query());
    }
    location
}

/// What an application has said besides stays.
fn begin(response: &mut Response, status: u16) {
    let is_begun = response.has_head();
    let mut say = |status: &[u8]| match is_begun {
        true => response.head_mut().restate(status),
        false => response.begin(status),
    };
    let _ = match status {
        200 => say(b"200 OK"),
        _ => say(format!("{status} {}", response::phrase(status)).as_bytes()),
    };
}

/// Takes out the type that an application has said for the file. An empty one leaves it to us.
fn own_type(response: &mut Response) -> Option<String> {
    if !response.has_head() {
        return None;
    }
    let head = response.head_mut();
    let own = head.get(b"content-type");
    let own = own.and_then(|own| String::from_utf8(own.to_vec()).ok());
    head.remove(b"content-type");
    own.filter(|own| !own.is_empty())
}

fn short(response: &mut Response, status: u16, fields: &[(&[u8], &[u8])]) {
    // What was meant for the file is not for a text of ours.
    response.discard();
    begin(response, status);
    for (name, value) in fields {
        let _ = response.field(name, value);
    }
    let _ = response.field(b"Content-Type", b"text/plain");
    let text = format!("{status} {}\n", response::phrase(status));
    response.finish(Some(text.len() as u64));
    response.write(text.as_bytes());
    response.end();
}
