//! What a structure should look like, and how what was read differs from it.
//!
//! A [`Shape`] gives the elements their ASN.1 paths. Where lengths contradict each other, the shape
//! says how far each element really goes: [`read`] then takes the structure from the tags, and finds
//! the lengths that do not add up.

use super::node::{Broken, Header, Node, describe};
use crate::Place;

/// The shape of an element.
pub(super) enum Shape {
    /// Anything.
    Any,
    /// A primitive with one of these identifier octets.
    Primitive(&'static [u8]),
    /// These fields, in this order, in an element with this identifier octet.
    Fields(u8, &'static [Field]),
    /// Any number of these in an element with this identifier octet.
    Of(u8, &'static Shape),
}

pub(super) struct Field {
    /// Empty for what is alone in an explicit tag, which has the path of the tag.
    pub(super) name: &'static str,
    pub(super) shape: &'static Shape,
    pub(super) optional: bool,
}

/// A field that has to be there.
pub(super) const fn field(name: &'static str, shape: &'static Shape) -> Field {
    Field { name, shape, optional: false }
}

/// A field that may be missing.
pub(super) const fn optional(name: &'static str, shape: &'static Shape) -> Field {
    Field { name, shape, optional: true }
}

/// An element that is not as the shape has it.
#[derive(Clone, Debug)]
pub(super) struct Misfit {
    /// Of what was found, or where something is missing.
    pub(super) place: Place,
    /// `None` if there should be nothing more.
    pub(super) expected: Option<String>,
    /// Its identifier octet; `None` if there is nothing more.
    pub(super) found: Option<u8>,
}

/// A length that does not add up.
#[derive(Clone, Debug)]
pub(super) struct WrongLength {
    pub(super) place: Place,
    /// What it says.
    pub(super) stated: usize,
    /// What it should say for all the rest to fit.
    pub(super) actual: usize,
}

/// A structure that was read, with everything that is wrong with its outlines.
pub(super) struct Reading {
    pub(super) root: Node,
    pub(super) misfits: Vec<Misfit>,
    pub(super) lengths: Vec<WrongLength>,
    /// How many bytes follow its end.
    pub(super) trailing: usize,
}

/// A structure that cannot be made out.
pub(super) struct Unreadable {
    /// What its lengths led to.
    pub(super) broken: Broken,
    /// How far its tags led.
    pub(super) furthest: Option<Misfit>,
}

/// Beyond this, lengths are not searched for.
const MAX_SEARCHED: usize = 64 * 1024;
/// How many elements before the place where a structure stops making sense may be to blame.
const SUSPECTS: usize = 12;
/// By how much the length of a primitive may be wrong.
const MAX_DIFFERENCE: usize = 64;

/// Reads the structure of that shape at the beginning of `bytes`. Offsets are `base` more than in
/// `bytes`; paths begin with `path`.
pub(super) fn read(
    bytes: &[u8],
    shape: &'static Shape,
    base: usize,
    path: &str,
) -> Result<Reading, Unreadable> {
    let by_lengths = Node::read(bytes, 0, bytes.len(), base).map(|(mut root, end)| {
        let mut misfits = Vec::new();
        shape.fit(&mut root, path, &mut misfits);
        Reading { root, misfits, lengths: Vec::new(), trailing: bytes.len() - end }
    });
    if let Ok(reading) = &by_lengths
        && reading.misfits.is_empty()
    {
        return by_lengths.map_err(|broken| Unreadable { broken, furthest: None });
    }
    if is_cut_short(bytes, shape) {
        return by_lengths.map_err(|broken| Unreadable { broken, furthest: None });
    }
    let mut by_tags = ByTags::new(bytes, base);
    if let Some(reading) = by_tags.whole(shape, path).or_else(|| by_tags.search(shape, path)) {
        return Ok(reading);
    }
    by_lengths.map_err(|broken| Unreadable { broken, furthest: by_tags.furthest })
}

/// Whether all lengths add up if only there were more bytes at the end.
fn is_cut_short(bytes: &[u8], shape: &Shape) -> bool {
    let Ok(Header { length: Some(length), size, .. }) = Header::read(bytes, 0, 0) else { return false };
    let missing = (size + length).saturating_sub(bytes.len());
    if missing == 0 || missing > MAX_SEARCHED {
        return false;
    }
    let padded = [bytes, &vec![0; missing]].concat();
    Node::read(&padded, 0, padded.len(), 0).is_ok_and(|(mut root, _)| {
        let mut misfits = Vec::new();
        shape.fit(&mut root, "", &mut misfits);
        misfits.is_empty()
    })
}

impl Shape {
    fn accepts(&self, tag: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Primitive(tags) => tags.contains(&tag),
            Self::Fields(own, _) | Self::Of(own, _) => *own == tag,
        }
    }

    /// What is expected, for a person.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Any => "element".into(),
            Self::Primitive(tags) => tags.iter().map(|tag| describe(*tag)).collect::<Vec<_>>().join(" or "),
            Self::Fields(tag, _) | Self::Of(tag, _) => describe(*tag),
        }
    }

    /// Gives `node` and what it holds their paths, and says what does not fit.
    pub(super) fn fit(&self, node: &mut Node, path: &str, misfits: &mut Vec<Misfit>) {
        node.path = path.to_owned();
        if !self.accepts(node.tag) {
            misfits.push(Misfit {
                place: node.place(),
                expected: Some(self.describe()),
                found: Some(node.tag),
            });
            name_freely(node);
            return;
        }
        let end = Place { offset: node.offset + node.size, length: 0, path: path.to_owned() };
        match self {
            Self::Any => name_freely(node),
            Self::Primitive(_) => {}
            Self::Of(_, shape) => {
                for (index, child) in node.children_mut().iter_mut().enumerate() {
                    shape.fit(child, &format!("{path}[{index}]"), misfits);
                }
            }
            Self::Fields(_, fields) => fit_fields(node.children_mut(), fields, path, &end, misfits),
        }
    }
}

fn fit_fields(
    children: &mut [Node],
    fields: &'static [Field],
    path: &str,
    end: &Place,
    misfits: &mut Vec<Misfit>,
) {
    let missing = |field: &Field, place: &Place| Misfit {
        place: Place { path: join(path, field.name), length: 0, ..place.clone() },
        expected: Some(field.shape.describe()),
        found: None,
    };
    let required = |fields: &[Field]| fields.iter().filter(|field| !field.optional).count();
    let mut rest = fields;
    let count = children.len();
    for (index, child) in children.iter_mut().enumerate() {
        // The field that this is: optional ones before it may not be there. If there are too few
        // elements, one that should be there is not.
        let skipped = rest.iter().position(|field| !field.optional || field.shape.accepts(child.tag));
        rest = rest.get(skipped.unwrap_or(rest.len())..).unwrap_or_default();
        if let [first, second, ..] = rest
            && !first.shape.accepts(child.tag)
            && second.shape.accepts(child.tag)
            && count - index < required(rest)
        {
            misfits.push(missing(first, &child.place()));
            rest = &rest[1..];
        }
        match rest.split_first() {
            Some((field, more)) => {
                field.shape.fit(child, &join(path, field.name), misfits);
                rest = more;
            }
            None => {
                child.path = format!("{path}[{index}]");
                misfits.push(Misfit { place: child.place(), expected: None, found: Some(child.tag) });
                name_freely(child);
            }
        }
    }
    misfits.extend(rest.iter().find(|field| !field.optional).map(|field| missing(field, end)));
}

/// Numbers what no shape speaks of.
fn name_freely(node: &mut Node) {
    let path = node.path.clone();
    for (index, child) in node.children_mut().iter_mut().enumerate() {
        child.path = format!("{path}[{index}]");
        name_freely(child);
    }
}

fn join(path: &str, name: &str) -> String {
    match (path, name) {
        (path, "") => path.to_owned(),
        ("", name) => name.to_owned(),
        (path, name) => format!("{path}.{name}"),
    }
}

/// Reads by tags: how far an element goes is what its shape says, not what its length says, where
/// the two differ.
struct ByTags<'a> {
    bytes: &'a [u8],
    base: usize,
    lengths: Vec<WrongLength>,
    /// Where the primitives are that were read on the way.
    primitives: Vec<usize>,
    furthest: Option<Misfit>,
}

impl<'a> ByTags<'a> {
    fn new(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, base, lengths: Vec::new(), primitives: Vec::new(), furthest: None }
    }

    /// A structure that fits, with nothing after it.
    fn whole(&mut self, shape: &'static Shape, path: &str) -> Option<Reading> {
        let (root, end) = self.element(shape, 0, path)?;
        let lengths = std::mem::take(&mut self.lengths);
        (end == self.bytes.len()).then_some(Reading { root, misfits: Vec::new(), lengths, trailing: 0 })
    }

    /// Tries whether everything fits if the length of one primitive is another one: the reading
    /// with the fewest wrong lengths, and among these the smallest difference.
    fn search(&mut self, shape: &'static Shape, path: &str) -> Option<Reading> {
        if self.bytes.len() > MAX_SEARCHED {
            return None;
        }
        let mut suspects = std::mem::take(&mut self.primitives);
        suspects.sort_unstable();
        suspects.dedup();
        let mut best: Option<((usize, usize), Reading)> = None;
        for at in suspects.into_iter().rev().take(SUSPECTS) {
            let Ok(header) = Header::read(self.bytes, at, self.base) else { continue };
            let Some(stated) = header.length else { continue };
            for difference in 1..=MAX_DIFFERENCE {
                for actual in [stated.checked_sub(difference), stated.checked_add(difference)] {
                    let Some(bytes) = actual.and_then(|actual| with_length(self.bytes, at, header, actual))
                    else {
                        continue;
                    };
                    let Some(mut reading) = ByTags::new(&bytes, self.base).whole(shape, path) else {
                        continue;
                    };
                    let rank = (reading.lengths.len(), difference);
                    if best.as_ref().is_none_or(|(best, _)| rank < *best) {
                        let place = at_offset(&reading.root, self.base + at);
                        let actual = actual.unwrap_or_default();
                        reading.lengths.insert(0, WrongLength { place, stated, actual });
                        best = Some((rank, reading));
                    }
                }
            }
        }
        best.map(|(_, reading)| reading)
    }

    fn element(&mut self, shape: &'static Shape, at: usize, path: &str) -> Option<(Node, usize)> {
        let header = match Header::read(self.bytes, at, self.base) {
            Ok(header) if shape.accepts(header.tag) => header,
            other => return self.miss(shape, at, path, other.ok().map(|header| header.tag)),
        };
        // What its length says is right if that fits.
        let stated = Node::read(self.bytes, at, self.bytes.len(), self.base);
        if let Ok((mut node, end)) = stated {
            let mut misfits = Vec::new();
            shape.fit(&mut node, path, &mut misfits);
            if misfits.is_empty() {
                self.note_primitives(&node);
                return Some((node, end));
            }
        }
        let start = at + header.size;
        let (children, end) = match shape {
            Shape::Any | Shape::Primitive(_) => {
                self.primitives.push(at);
                return self.miss(shape, at, path, Some(header.tag));
            }
            Shape::Fields(_, fields) => self.fields(fields, start, path)?,
            Shape::Of(_, shape) => self.many(shape, start, path),
        };
        let mut node = Node::constructed(header.tag, children);
        (node.offset, node.size, node.form) = (self.base + at, end - at, header.form);
        path.clone_into(&mut node.path);
        if let Some(stated) = header.length.filter(|stated| start + stated != end) {
            self.lengths.push(WrongLength { place: node.place(), stated, actual: end - start });
        }
        Some((node, end))
    }

    fn fields(&mut self, fields: &'static [Field], start: usize, path: &str) -> Option<(Vec<Node>, usize)> {
        let mut children = Vec::new();
        let mut at = start;
        for Field { name, shape, optional } in fields {
            let known = self.lengths.len();
            match self.element(shape, at, &join(path, name)) {
                Some((node, end)) => {
                    children.push(node);
                    at = end;
                }
                None if *optional => self.lengths.truncate(known),
                None => return None,
            }
        }
        Some((children, at))
    }

    fn many(&mut self, shape: &'static Shape, start: usize, path: &str) -> (Vec<Node>, usize) {
        let mut children = Vec::new();
        let mut at = start;
        while at < self.bytes.len() {
            let known = self.lengths.len();
            match self.element(shape, at, &format!("{path}[{}]", children.len())) {
                Some((node, end)) => {
                    children.push(node);
                    at = end;
                }
                None => {
                    self.lengths.truncate(known);
                    break;
                }
            }
        }
        (children, at)
    }

    fn miss<T>(&mut self, shape: &Shape, at: usize, path: &str, found: Option<u8>) -> Option<T> {
        let offset = self.base + at;
        if self.furthest.as_ref().is_none_or(|furthest| furthest.place.offset <= offset) {
            let place = Place { offset, length: 0, path: path.to_owned() };
            self.furthest = Some(Misfit { place, expected: Some(shape.describe()), found });
        }
        None
    }

    fn note_primitives(&mut self, node: &Node) {
        let (base, primitives) = (self.base, &mut self.primitives);
        node.walk(&mut |node| {
            if node.children().is_empty() {
                primitives.push(node.offset - base);
            }
        });
    }
}

/// `bytes` with another length at `at`, if it can be written in as many octets.
fn with_length(bytes: &[u8], at: usize, header: Header, length: usize) -> Option<Vec<u8>> {
    let octets = header.size.checked_sub(2)?;
    let mut changed = bytes.to_vec();
    if octets == 0 {
        *changed.get_mut(at + 1)? = u8::try_from(length).ok().filter(|length| *length < 0x80)?;
    } else {
        let all = length.to_be_bytes();
        let (zeros, kept) = all.split_at(all.len().checked_sub(octets)?);
        if zeros.iter().any(|octet| *octet != 0) {
            return None;
        }
        changed.get_mut(at + 2..at + header.size)?.copy_from_slice(kept);
    }
    Some(changed)
}

fn at_offset(root: &Node, offset: usize) -> Place {
    let mut place = root.place();
    root.walk(&mut |node| {
        if node.offset == offset {
            place = node.place();
        }
    });
    place
}
