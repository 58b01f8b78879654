//! Elements of DER (X.690) as they were written, right or wrong, and where each was.

use zeroize::Zeroizing;

use crate::Place;

/// One element. It can be changed and encoded again, which gives it the lengths that it should have.
#[derive(Clone)]
pub(super) struct Node {
    /// Of its identifier octet, from the first byte of the file's DER.
    pub(super) offset: usize,
    /// The length of its header and contents as they were written.
    pub(super) size: usize,
    /// Its identifier octet: class, constructed or not, number.
    pub(super) tag: u8,
    /// How its length was written.
    pub(super) form: Form,
    /// In ASN.1 terms; empty for the outermost.
    pub(super) path: String,
    pub(super) body: Body,
}

/// How a length was written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In the one way that DER allows.
    Shortest,
    /// In more octets than it needs.
    Long,
    /// Not at all: two zero bytes end the element, which only BER allows.
    Indefinite,
}

#[derive(Clone)]
pub(super) enum Body {
    /// It may be a private key.
    Primitive(Zeroizing<Vec<u8>>),
    Constructed(Vec<Node>),
}

/// Why bytes are no element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// They end before its length does.
    Header { offset: usize },
    /// Its contents end beyond what holds it.
    Overrun { offset: usize, stated: usize, present: usize },
    /// A tag number above 30, or a length of more than four octets, which nothing here has.
    Strange { offset: usize },
    /// Nested deeper than anything here is.
    Deep { offset: usize },
}

const CONSTRUCTED: u8 = 0x20;
const MAX_DEPTH: usize = 40;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OID: u8 = 0x06;
pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const TELETEX_STRING: u8 = 0x14;
pub(super) const IA5_STRING: u8 = 0x16;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const UNIVERSAL_STRING: u8 = 0x1c;
pub(super) const BMP_STRING: u8 = 0x1e;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// What begins an element.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) tag: u8,
    /// `None` if it is indefinite.
    pub(super) length: Option<usize>,
    /// Of the header itself.
    pub(super) size: usize,
    pub(super) form: Form,
}

impl Header {
    /// Reads the header at `at`. Offsets of what is broken are `base` more than in `bytes`.
    pub(super) fn read(bytes: &[u8], at: usize, base: usize) -> Result<Self, Broken> {
        let offset = base + at;
        let rest = bytes.get(at..).unwrap_or_default();
        let [tag, first, more @ ..] = rest else { return Err(Broken::Header { offset }) };
        if tag & 0x1f == 0x1f {
            return Err(Broken::Strange { offset });
        }
        let (length, size, form) = match *first {
            short @ ..0x80 => (Some(usize::from(short)), 2, Form::Shortest),
            0x80 => (None, 2, Form::Indefinite),
            first => {
                let count = usize::from(first & 0x7f);
                if count > 4 {
                    return Err(Broken::Strange { offset });
                }
                let octets = more.get(..count).ok_or(Broken::Header { offset })?;
                let length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
                let shortest = length >= 0x80 && octets.first() != Some(&0);
                (Some(length), 2 + count, if shortest { Form::Shortest } else { Form::Long })
            }
        };
        Ok(Self { tag: *tag, length, size, form })
    }
}

impl Body {
    pub(super) fn primitive(contents: impl Into<Vec<u8>>) -> Self {
        Self::Primitive(Zeroizing::new(contents.into()))
    }
}

impl Node {
    /// Reads the element at `at`, which ends before `limit`, by its lengths alone. Returns where it
    /// ends, too. Offsets are `base` more than in `bytes`.
    pub(super) fn read(bytes: &[u8], at: usize, limit: usize, base: usize) -> Result<(Self, usize), Broken> {
        read(bytes, at, limit, base, 0)
    }

    /// An element of our own.
    pub(super) fn primitive(tag: u8, contents: impl Into<Vec<u8>>) -> Self {
        Self::new(tag, Body::primitive(contents))
    }

    /// An element of our own that holds others.
    pub(super) fn constructed(tag: u8, children: Vec<Self>) -> Self {
        Self::new(tag, Body::Constructed(children))
    }

    fn new(tag: u8, body: Body) -> Self {
        Self { offset: 0, size: 0, tag, form: Form::Shortest, path: String::new(), body }
    }

    /// Its DER, with every length in the shortest form.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_length());
        self.encode_to(&mut bytes);
        bytes
    }

    /// Its contents, encoded.
    pub(super) fn contents(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.contents_length());
        self.contents_to(&mut bytes);
        bytes
    }

    /// Into a buffer that is large enough: one that grew would leave secrets behind.
    fn encode_to(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.tag);
        let length = self.contents_length();
        if length < 0x80 {
            bytes.push(length as u8);
        } else {
            let octets = length.to_be_bytes();
            let zeros = octets.iter().take_while(|octet| **octet == 0).count();
            bytes.push(0x80 | (octets.len() - zeros) as u8);
            bytes.extend_from_slice(&octets[zeros..]);
        }
        self.contents_to(bytes);
    }

    fn contents_to(&self, bytes: &mut Vec<u8>) {
        match &self.body {
            Body::Primitive(contents) => bytes.extend_from_slice(contents),
            Body::Constructed(children) => children.iter().for_each(|child| child.encode_to(bytes)),
        }
    }

    fn contents_length(&self) -> usize {
        match &self.body {
            Body::Primitive(contents) => contents.len(),
            Body::Constructed(children) => children.iter().map(Self::encoded_length).sum(),
        }
    }

    fn encoded_length(&self) -> usize {
        let length = self.contents_length();
        let octets =
            if length < 0x80 { 0 } else { (usize::BITS - length.leading_zeros()).div_ceil(8) as usize };
        2 + octets + length
    }

    /// The contents of a primitive; empty for one that holds elements.
    pub(super) fn value(&self) -> &[u8] {
        match &self.body {
            Body::Primitive(contents) => contents,
            Body::Constructed(_) => &[],
        }
    }

    /// What it holds; nothing for a primitive.
    pub(super) fn children(&self) -> &[Self] {
        match &self.body {
            Body::Primitive(_) => &[],
            Body::Constructed(children) => children,
        }
    }

    pub(super) fn children_mut(&mut self) -> &mut [Self] {
        match &mut self.body {
            Body::Primitive(_) => &mut [],
            Body::Constructed(children) => children,
        }
    }

    /// The element of that path, below it or itself.
    pub(super) fn find(&self, path: &str) -> Option<&Self> {
        if self.path == path {
            return Some(self);
        }
        self.children().iter().find_map(|child| child.find(path))
    }

    pub(super) fn find_mut(&mut self, path: &str) -> Option<&mut Self> {
        if self.path == path {
            return Some(self);
        }
        self.children_mut().iter_mut().find_map(|child| child.find_mut(path))
    }

    /// Calls `visit` with it and all below it, in their order.
    pub(super) fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        visit(self);
        self.children().iter().for_each(|child| child.walk(visit));
    }

    pub(super) fn walk_mut(&mut self, visit: &mut dyn FnMut(&mut Self)) {
        visit(self);
        self.children_mut().iter_mut().for_each(|child| child.walk_mut(visit));
    }

    /// Where its contents begin.
    pub(super) fn contents_offset(&self) -> usize {
        let header = match &self.body {
            Body::Primitive(contents) => self.size.saturating_sub(contents.len()),
            Body::Constructed(children) => children.first().map_or(2, |first| first.offset - self.offset),
        };
        self.offset + header
    }

    /// Where it was.
    pub(super) fn place(&self) -> Place {
        Place { offset: self.offset, length: self.size, path: self.path.clone() }
    }

    /// What it is, for a person.
    pub(super) fn describe(&self) -> String {
        describe(self.tag)
    }
}

/// The same with its article: `an INTEGER (0x02)`.
pub(super) fn with_article(words: &str) -> String {
    let article = if words.starts_with(['A', 'E', 'I', 'O', 'e']) { "an" } else { "a" };
    format!("{article} {words}")
}

/// An identifier octet in words: `BIT STRING (0x03)`.
pub(super) fn describe(tag: u8) -> String {
    let name = match tag {
        BOOLEAN => "BOOLEAN",
        INTEGER => "INTEGER",
        BIT_STRING => "BIT STRING",
        OCTET_STRING => "OCTET STRING",
        NULL => "NULL",
        OID => "OBJECT IDENTIFIER",
        ENUMERATED => "ENUMERATED",
        UTF8_STRING => "UTF8String",
        PRINTABLE_STRING => "PrintableString",
        TELETEX_STRING => "TeletexString",
        IA5_STRING => "IA5String",
        UTC_TIME => "UTCTime",
        GENERALIZED_TIME => "GeneralizedTime",
        UNIVERSAL_STRING => "UniversalString",
        BMP_STRING => "BMPString",
        SEQUENCE => "SEQUENCE",
        SET => "SET",
        0x80..=0xbf => return format!("[{}] (0x{tag:02x})", tag & 0x1f),
        _ => return format!("0x{tag:02x}"),
    };
    format!("{name} (0x{tag:02x})")
}

fn read(bytes: &[u8], at: usize, limit: usize, base: usize, depth: usize) -> Result<(Node, usize), Broken> {
    let offset = base + at;
    if depth > MAX_DEPTH {
        return Err(Broken::Deep { offset });
    }
    let bytes = bytes.get(..limit).unwrap_or(bytes);
    let header = Header::read(bytes, at, base)?;
    let start = at + header.size;
    let present = bytes.len().saturating_sub(start);
    let mut end = match header.length {
        Some(stated) if stated > present => return Err(Broken::Overrun { offset, stated, present }),
        Some(stated) => start + stated,
        None => bytes.len(),
    };
    let body = if header.tag & CONSTRUCTED == 0 {
        if header.length.is_none() {
            return Err(Broken::Strange { offset });
        }
        Body::primitive(bytes.get(start..end).unwrap_or_default())
    } else {
        let mut children = Vec::new();
        let mut next = start;
        while next < end {
            if header.length.is_none() && bytes.get(next..).is_some_and(|rest| rest.starts_with(&[0, 0])) {
                break;
            }
            let (child, after) = read(bytes, next, end, base, depth + 1)?;
            children.push(child);
            next = after;
        }
        if header.length.is_none() {
            if next >= bytes.len() {
                return Err(Broken::Header { offset: base + next });
            }
            end = next + 2;
        }
        Body::Constructed(children)
    };
    let node = Node { offset, size: end - at, tag: header.tag, form: header.form, path: String::new(), body };
    Ok((node, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_encodes_to_the_same() {
        let leaf = Node::primitive(OCTET_STRING, vec![7; 200]);
        let der = Node::constructed(SEQUENCE, vec![Node::primitive(INTEGER, [1]), leaf]).encode();
        let (node, end) = Node::read(&der, 0, der.len(), 100).expect("it is DER");
        assert_eq!((end, node.offset, node.children()[1].offset), (der.len(), 100, 106));
        assert_eq!(node.children()[1].contents_offset(), 109);
        assert_eq!(node.encode(), der);
    }

    #[test]
    fn lengths_that_der_does_not_have_are_seen_and_mended() {
        // An indefinite SEQUENCE with an INTEGER whose length takes two octets too many.
        let ber = [0x30, 0x80, 2, 0x82, 0, 1, 5, 0, 0];
        let (node, end) = Node::read(&ber, 0, ber.len(), 0).expect("it is BER");
        assert_eq!(end, ber.len());
        assert!(node.form == Form::Indefinite && node.children()[0].form == Form::Long);
        assert_eq!(node.encode(), [0x30, 3, 2, 1, 5]);
    }

    #[test]
    fn what_is_broken_is_located() {
        for (bytes, broken) in [
            (&[0x30][..], Broken::Header { offset: 0 }),
            (&[0x30, 5, 2, 1, 1], Broken::Overrun { offset: 0, stated: 5, present: 3 }),
            (&[0x30, 3, 2, 2, 1], Broken::Overrun { offset: 2, stated: 2, present: 1 }),
            (&[0x30, 0x80, 2, 1, 1], Broken::Header { offset: 5 }),
            (&[0x30, 0x85, 1, 1, 1, 1, 1], Broken::Strange { offset: 0 }),
            (&[0x1f, 1, 1], Broken::Strange { offset: 0 }),
        ] {
            assert_eq!(Node::read(bytes, 0, bytes.len(), 0).err(), Some(broken), "{bytes:?}");
        }
        let deep = [0x30, 0x80].repeat(50);
        assert_eq!(Node::read(&deep, 0, deep.len(), 0).err(), Some(Broken::Deep { offset: 82 }));
    }
}
