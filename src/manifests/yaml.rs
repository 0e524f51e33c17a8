//! YAML (and with it JSON) to values that know their lines.
//!
//! Built on the parser's events, because the loader that comes with it recurses as deep as its
//! input nests. Here depth, and size after all aliases, are bounded, so that no file can take the
//! stack or the memory of the process. A value never appears in an error, and
//! none can be printed by mistake: it may be a password.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use saphyr::{Scalar, ScalarStyle, Tag};
use saphyr_parser::{Event, Parser};
use serde_json::Value;

use crate::k8s::field::quoted;

/// Manifests nest some ten levels deep.
const DEPTH_MAX: usize = 64;
/// Octets of one document with every alias written out, each value counted as [`NODE_BYTES`] more.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
const NODE_BYTES: usize = 16;

/// What was read of a text.
#[derive(Default)]
pub(crate) struct Parsed {
    /// The documents in order, without the empty ones, up to the first error of syntax.
    pub documents: Vec<Rc<Node>>,
    /// Lines, counted from 1, and what is wrong there.
    pub errors: Vec<(usize, String)>,
}

/// A value and the line where it starts.
pub(crate) struct Node {
    pub line: usize,
    content: Content,
    depth: usize,
    bytes: usize,
}

enum Content {
    Scalar(Value),
    Sequence(Vec<Rc<Node>>),
    /// Per key its own line, which for a nested value is the line before the value's.
    Mapping(BTreeMap<String, (usize, Rc<Node>)>),
}

/// Reads all documents of `text`.
pub(crate) fn parse(text: &str) -> Parsed {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, span)) => builder.take(event, span.start.line()),
            Err(error) => Err((error.marker().line(), format!("not YAML: {}", error.info()))),
        };
        if let Err(fatal) = step {
            builder.parsed.errors.push(fatal);
            break;
        }
    }
    builder.parsed
}

type Fatal = (usize, String);

#[derive(Default)]
struct Builder {
    parsed: Parsed,
    open: Vec<Frame>,
    anchors: HashMap<usize, Rc<Node>>,
}

/// A sequence or mapping whose end is still to come.
struct Frame {
    line: usize,
    anchor: usize,
    content: Content,
    /// The key whose value comes next.
    key: Option<(usize, String)>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Fatal> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                self.start(line, anchor, tag.as_deref(), Content::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.start(line, anchor, tag.as_deref(), Content::Mapping(BTreeMap::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let frame = self.open.pop().expect("the parser ends only what it started");
                self.add(Node::new(frame.line, frame.content), frame.anchor)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), line);
                self.add(Node::new(line, Content::Scalar(value)), anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => self.add_shared(Rc::clone(node), line),
                None => Err((line, "an alias inside of what it stands for".to_owned())),
            },
        }
    }

    fn start(
        &mut self,
        line: usize,
        anchor: usize,
        tag: Option<&Tag>,
        content: Content,
    ) -> Result<(), Fatal> {
        self.check_tag(tag, line);
        if self.awaits_key() {
            return Err((line, "a key must be a string".to_owned()));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err((line, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        self.open.push(Frame { line, anchor, content, key: None });
        Ok(())
    }

    fn check_tag(&mut self, tag: Option<&Tag>, line: usize) {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            let text = format!("the tag {} is not known", quoted(&tag.to_string()));
            self.parsed.errors.push((line, text));
        }
    }

    fn awaits_key(&self) -> bool {
        self.open.last().is_some_and(|frame| {
            matches!(frame.content, Content::Mapping(_)) && frame.key.is_none()
        })
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Value {
        self.check_tag(tag, line);
        let tag = tag.cloned().map(std::borrow::Cow::Owned);
        let value = match Scalar::parse_from_cow_and_metadata(text.into(), style, tag.as_ref()) {
            Some(Scalar::Null) => Some(Value::Null),
            Some(Scalar::Boolean(value)) => Some(value.into()),
            Some(Scalar::Integer(value)) => Some(value.into()),
            Some(Scalar::FloatingPoint(value)) => {
                serde_json::Number::from_f64(value.into_inner()).map(Value::Number)
            }
            Some(Scalar::String(value)) => Some(Value::String(value.into_owned())),
            None => None,
        };
        value.unwrap_or_else(|| {
            self.parsed.errors.push((line, "a value that JSON or its tag does not allow".into()));
            Value::Null
        })
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Fatal> {
        let line = node.line;
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.add_shared(node, line)
    }

    fn add_shared(&mut self, node: Rc<Node>, line: usize) -> Result<(), Fatal> {
        if node.bytes > DOCUMENT_BYTES_MAX {
            return Err((line, "its aliases expand to more than 16 MiB".to_owned()));
        }
        if self.open.len() + node.depth > DEPTH_MAX {
            return Err((line, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        let Some(frame) = self.open.last_mut() else {
            if !matches!(node.content, Content::Scalar(Value::Null)) {
                self.parsed.documents.push(node);
            }
            return Ok(());
        };
        match (&mut frame.content, frame.key.take()) {
            (Content::Sequence(items), _) => items.push(node),
            (Content::Mapping(_), None) => match &node.content {
                Content::Scalar(Value::String(key)) if key == "<<" => {
                    return Err((line, "merge keys (<<) are not supported".to_owned()));
                }
                Content::Scalar(Value::String(key)) => frame.key = Some((line, key.clone())),
                _ => return Err((line, "a key must be a string".to_owned())),
            },
            (Content::Mapping(fields), Some((line, key))) => {
                if let Some((first, _)) = fields.get(&key) {
                    let text = format!("the key {} is already on line {first}", quoted(&key));
                    self.parsed.errors.push((line, text));
                }
                fields.insert(key, (line, node));
            }
            (Content::Scalar(_), _) => unreachable!("a scalar is never open"),
        }
        Ok(())
    }
}

impl Node {
    fn new(line: usize, content: Content) -> Self {
        let mut depth = 0;
        let mut bytes = NODE_BYTES;
        let mut count = |key: &str, child: &Node| {
            depth = depth.max(child.depth + 1);
            bytes = bytes.saturating_add(key.len()).saturating_add(child.bytes);
        };
        match &content {
            Content::Scalar(Value::String(text)) => bytes += text.len(),
            Content::Scalar(_) => {}
            Content::Sequence(items) => items.iter().for_each(|child| count("", child)),
            Content::Mapping(fields) => {
                fields.iter().for_each(|(key, (_, child))| count(key, child))
            }
        }
        Self { line, content, depth, bytes }
    }

    /// The value without its lines. The bounds kept while reading bound this too.
    pub(crate) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::Sequence(items) => items.iter().map(|item| item.to_value()).collect(),
            Content::Mapping(fields) => fields
                .iter()
                .map(|(key, (_, value))| (key.clone(), value.to_value()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }

    /// The fields of a mapping, each with its line; `None` for what is none.
    pub(crate) fn fields(&self) -> Option<impl Iterator<Item = (&str, usize, &Self)>> {
        let Content::Mapping(fields) = &self.content else { return None };
        Some(fields.iter().map(|(name, (line, node))| (name.as_str(), *line, &**node)))
    }

    /// The line of the field at `path` (`spec.smtp.port`, `spec.notificationMails[0]`), or of its
    /// nearest parent that is there.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        self.find(path).unwrap_or(self.line)
    }

    fn find(&self, path: &str) -> Option<usize> {
        match &self.content {
            Content::Scalar(_) => None,
            Content::Sequence(items) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some(item.find(rest.trim_start_matches('.')).unwrap_or(item.line))
            }
            // A key may hold dots itself, so it is the keys that say where the path parts.
            Content::Mapping(fields) => fields.iter().find_map(|(key, (line, value))| {
                let rest = path.strip_prefix(key.as_str())?;
                let is_whole = rest.is_empty() || rest.starts_with(['.', '[']);
                is_whole.then(|| value.find(rest.trim_start_matches('.')).unwrap_or(*line))
            }),
        }
    }
}

#[cfg(test)]
mod tests;
