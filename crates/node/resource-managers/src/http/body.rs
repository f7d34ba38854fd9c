//! The body of an answer, as far as it is read.
//!
//! Invariant: whatever a service sends, no more than [`LIMIT`] bytes of it are kept.

use bytes::Bytes;
use http_body_util::BodyExt;

/// The most that is read of an answer, in bytes.
pub(super) const LIMIT: usize = 256 << 10;

/// What was read.
pub(super) struct Beginning {
    pub(super) bytes: Vec<u8>,
    /// Whether there was more.
    pub(super) cut: bool,
}

/// Reads a body up to the limit.
pub(super) async fn read<B>(mut body: B) -> Result<Beginning, B::Error>
where
    B: BodyExt<Data = Bytes> + Unpin,
{
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = LIMIT - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok(Beginning { bytes, cut: true });
        }
    }
    Ok(Beginning { bytes, cut: false })
}

impl Beginning {
    /// As text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Only what certainly is a whole line: half a name may be another one's. Nothing, if the first
    /// line alone does not fit.
    pub(super) fn whole_lines(mut self) -> Option<Beginning> {
        if self.cut {
            let end = self.bytes.iter().rposition(|byte| *byte == b'\n')?;
            self.bytes.truncate(end);
        }
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    #[tokio::test]
    async fn no_more_is_kept_than_the_limit() {
        for (length, cut) in [(0, false), (LIMIT, false), (LIMIT + 1, true)] {
            let beginning = read(Full::new(Bytes::from(vec![b'x'; length]))).await.unwrap();
            assert_eq!((beginning.bytes.len(), beginning.cut), (length.min(LIMIT), cut));
        }
    }

    #[test]
    fn a_line_that_is_cut_is_none() {
        let lines = |text: &str, cut| {
            let beginning = Beginning { bytes: text.into(), cut };
            beginning.whole_lines().map(|lines| lines.text())
        };
        assert_eq!(lines("t hotel:room", false).as_deref(), Some("t hotel:room"));
        assert_eq!(lines("t hotel:a\nt hotel:ro", true).as_deref(), Some("t hotel:a"));
        assert_eq!(lines("t hotel:ro", true), None);
    }
}
