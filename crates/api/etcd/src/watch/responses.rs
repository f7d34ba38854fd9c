//! Events to watch responses: previous values, and cutting what is too large.

use crate::backend::Backend;
use crate::convert;
use crate::node::Node;
use prost::Message;
use quorate_mvcc::{Event, Revision};
use quorate_wire::etcdserverpb::{ResponseHeader, WatchResponse};
use quorate_wire::mvccpb;
use quorate_wire::mvccpb::event::EventType;

/// An event as clients see it.
pub(crate) fn event<B: Backend>(node: &Node<B>, event: &Event, prev_kv: bool) -> mvccpb::Event {
    let created = matches!(event, Event::Put(kv) if kv.create_revision == kv.mod_revision);
    let prev_kv = if prev_kv && !created { previous(node, event) } else { None };
    let (kind, kv) = match event {
        Event::Put(kv) => (EventType::Put, convert::key_value(kv.clone())),
        Event::Delete { key, revision } => {
            let mod_revision = convert::wire(*revision);
            let kv = mvccpb::KeyValue { key: key.clone(), mod_revision, ..Default::default() };
            (EventType::Delete, kv)
        }
    };
    mvccpb::Event { r#type: kind as i32, kv: Some(kv), prev_kv }
}

/// The key before the event; nothing where that was compacted, as in etcd.
fn previous<B: Backend>(node: &Node<B>, event: &Event) -> Option<mvccpb::KeyValue> {
    let before = event.revision().checked_sub(1).filter(|before| *before > 0)?;
    node.backend.reader().key_at(event.key(), before).ok()?.map(convert::key_value)
}

/// A response with these events.
pub(crate) fn response(
    header: ResponseHeader,
    watch_id: i64,
    events: Vec<mvccpb::Event>,
) -> WatchResponse {
    WatchResponse { header: Some(header), watch_id, events, ..Default::default() }
}

/// Cuts a response that is too large into several, none (but for single events) of `max_bytes`.
/// All but the last say that more follows.
pub(crate) fn fragments(response: WatchResponse, max_bytes: usize) -> Vec<WatchResponse> {
    if response.encoded_len() < max_bytes || response.events.len() < 2 {
        return vec![response];
    }
    let frame = WatchResponse { events: Vec::new(), fragment: true, ..response.clone() };
    let base = frame.encoded_len();
    let (mut parts, mut size) = (vec![frame.clone()], base);
    for event in response.events {
        let cost = prost::encoding::message::encoded_len(11, &event);
        if let Some(part) = parts.last()
            && !part.events.is_empty()
            && size + cost >= max_bytes
        {
            parts.push(frame.clone());
            size = base;
        }
        size += cost;
        if let Some(part) = parts.last_mut() {
            part.events.push(event);
        }
    }
    if let Some(last) = parts.last_mut() {
        last.fragment = false;
    }
    parts
}

/// Splits events into runs of whole revisions of about `max_bytes`, with the last revision each.
pub(crate) fn runs(events: &[Event], max_bytes: usize) -> Vec<(&[Event], Revision)> {
    let (mut runs, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, event) in events.iter().enumerate() {
        let weight = match event {
            Event::Put(kv) => kv.key.len() + kv.value.len(),
            Event::Delete { key, .. } => key.len(),
        };
        if let Some(before) = at.checked_sub(1).map(|before| events[before].revision())
            && bytes + weight > max_bytes
            && before != event.revision()
        {
            runs.push((&events[start..at], before));
            (start, bytes) = (at, 0);
        }
        bytes += weight;
    }
    if let Some(last) = events.last() {
        runs.push((&events[start..], last.revision()));
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_mvcc::KeyValue;

    fn put(revision: Revision, size: usize) -> Event {
        let value = vec![b'v'; size].into();
        Event::Put(KeyValue { value, mod_revision: revision, ..KeyValue::default() })
    }

    #[test]
    fn runs_never_split_a_revision() {
        let events = [put(2, 100), put(2, 100), put(3, 10), put(4, 10), put(5, 500), put(6, 1)];
        let shape = |max_bytes| -> Vec<_> {
            runs(&events, max_bytes).iter().map(|(run, last)| (run.len(), *last)).collect()
        };
        assert_eq!(shape(210), vec![(3, 3), (1, 4), (1, 5), (1, 6)]);
        assert_eq!(shape(1), vec![(2, 2), (1, 3), (1, 4), (1, 5), (1, 6)]);
        assert_eq!(shape(10_000), vec![(6, 6)]);
        assert!(runs(&[], 10).is_empty());
    }

    #[test]
    fn fragments_are_small_and_complete() {
        let events = (0..10)
            .map(|n| {
                let kv = mvccpb::KeyValue { value: vec![n; 100].into(), ..Default::default() };
                mvccpb::Event { kv: Some(kv), ..Default::default() }
            })
            .collect::<Vec<_>>();
        let whole = response(ResponseHeader::default(), 7, events.clone());
        assert_eq!(fragments(whole.clone(), 1 << 20).len(), 1);
        let parts = fragments(whole, 350);
        assert!(parts.iter().all(|part| part.encoded_len() < 350 && part.watch_id == 7));
        let flags: Vec<bool> = parts.iter().map(|part| part.fragment).collect();
        assert_eq!(flags, vec![true, true, true, false]);
        let back: Vec<_> = parts.into_iter().flat_map(|part| part.events).collect();
        assert_eq!(back, events);
    }
}
