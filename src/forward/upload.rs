//! A request's body on its way to an instance: streamed, and kept while a second try is possible and it is small.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::connection::{Connection, NEVER};
use super::error::Detail;
use super::grpc_web::Decoder;
use super::patience::{Patience, Progress};
use super::trailers::{Taken, of_request};
use crate::engine::time::Millis;
use crate::upstream::Received;

/// A body that comes in more pieces is not kept: each costs more than its bytes.
const MOST_KEPT: usize = 1_024;
/// Pieces below this are copied when they are kept, for each is a slice of the buffer that it was read into, of 8 KiB or
/// 16: what is kept would hold far more than it counts.
const COPIED: usize = 4 * 1_024;

/// The client's body; shared by the tries of one request.
#[derive(Debug)]
pub struct Upload {
    source: RefCell<Received>,
    size: SizeHint,
    kept: RefCell<Kept>,
    connection: Rc<Connection>,
    /// What its trailers may not say.
    taken: Taken,
    /// Frames that the try at hand has read.
    read: Cell<usize>,
    progress: Progress,
}

/// What was passed on and may be needed again.
#[derive(Debug, Default)]
struct Kept {
    /// Frames that were let go before those in `frames`.
    gone: usize,
    frames: Vec<KeptFrame>,
    size: usize,
    /// Bytes in the account of memory.
    held: usize,
    /// 0: nothing is kept any more.
    limit: usize,
}

#[derive(Clone, Debug)]
enum KeptFrame {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl KeptFrame {
    /// Bytes of it in the account.
    fn size(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }
}

impl From<KeptFrame> for Frame<Bytes> {
    fn from(frame: KeptFrame) -> Self {
        match frame {
            KeptFrame::Data(data) => Self::data(data),
            KeptFrame::Trailers(trailers) => Self::trailers(trailers),
        }
    }
}

impl Upload {
    /// A body that starts to be read when the first try asks for it. `keep`: bytes kept for another try.
    /// `taken`: what its trailers may not say.
    #[must_use]
    pub fn new(
        source: Received,
        connection: &Rc<Connection>,
        patience: Patience,
        keep: usize,
        taken: Taken,
    ) -> Rc<Self> {
        let size = source.size_hint();
        // A body that says it is larger will not fit: nothing of it need be held.
        let limit = if size.lower() > keep as u64 { 0 } else { keep };
        Rc::new(Self {
            source: RefCell::new(source),
            size,
            kept: RefCell::new(Kept { limit, ..Kept::default() }),
            connection: Rc::clone(connection),
            taken,
            read: Cell::new(0),
            progress: Progress::new(connection.clock.now(), patience),
        })
    }

    /// How far it has come, and who is waited for.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether another try would see the whole body.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.fault().is_none() && self.kept.borrow().gone == 0
    }

    /// No other try will come: nothing is kept from here on but what the try at hand has still to read.
    pub fn forget(&self) {
        let mut kept = self.kept.borrow_mut();
        kept.limit = 0;
        if !self.is_whole() {
            return;
        }
        let read = self.read.get().saturating_sub(kept.gone).min(kept.frames.len());
        kept.gone += read;
        let gone = kept.frames.drain(..read).map(|frame| frame.size()).sum();
        self.let_go(&mut kept, gone);
    }

    /// The whole body once more, for an exchange of its own. The error says in a word why there is none: it is larger
    /// than what is kept, or has not come to its end.
    pub fn copied(&self) -> Result<UploadBody, &'static str> {
        let kept = self.kept.borrow();
        if kept.gone > 0 || kept.limit == 0 {
            return Err("too_large");
        }
        if !self.is_whole() {
            return Err("incomplete");
        }
        let frames = Rc::from(kept.frames.as_slice());
        Ok(UploadBody { upload: None, copy: Some(Copied { frames, size: self.size }), at: 0, text: None })
    }

    /// Bytes received from the client.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.progress.bytes()
    }

    /// Whether all of it was read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.progress.is_whole()
    }

    /// What the client did wrong with its body, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<Detail> {
        self.progress.fault()
    }

    fn poll_source(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let progress = &self.progress;
        let now = self.connection.clock.now();
        if !self.connection.turn.lasts(cx) {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut *self.source.borrow_mut()).poll_frame(cx);
        match polled {
            Poll::Pending => {
                let deadline = progress.starve(now);
                if now >= deadline {
                    return self.fail(Detail::ClientTimeout);
                }
                self.connection.upload_deadline.set(deadline);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.came(now, bytes);
                self.connection.turn.moved(bytes);
                if let Some(trailers) = frame.trailers_mut() {
                    of_request(trailers, &self.taken);
                }
                if frame.is_trailers() || self.source.borrow().is_end_stream() {
                    progress.end();
                }
                Poll::Ready(Some(Ok(self.keep(frame))))
            }
            Poll::Ready(Some(Err(_))) => self.fail(Detail::ClientBody),
            Poll::Ready(None) => {
                self.came(now, 0);
                progress.end();
                Poll::Ready(None)
            }
        }
    }

    fn came(&self, now: Millis, bytes: usize) {
        self.progress.came(now, bytes);
        self.connection.upload_deadline.set(NEVER);
    }

    fn fail(&self, detail: Detail) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        self.progress.fail(detail);
        self.connection.upload_deadline.set(NEVER);
        Poll::Ready(Some(Err(UploadFault(detail))))
    }

    fn keep(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let mut kept = self.kept.borrow_mut();
        let size = frame.data_ref().map_or(0, Bytes::len);
        kept.size += size;
        if kept.size > kept.limit || kept.frames.len() >= MOST_KEPT {
            kept.limit = 0;
            kept.gone += kept.frames.len() + 1;
            kept.frames.clear();
            let held = kept.held;
            self.let_go(&mut kept, held);
            return frame;
        }
        match frame.into_data() {
            Ok(data) => {
                let own = if size < COPIED { Bytes::copy_from_slice(&data) } else { data.clone() };
                kept.frames.push(KeptFrame::Data(own));
                kept.held += size;
                self.connection.room.hold(size as u64);
                Frame::data(data)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    kept.frames.push(KeptFrame::Trailers(trailers.clone()));
                    Frame::trailers(trailers)
                }
                Err(frame) => frame,
            },
        }
    }
}

impl Upload {
    /// So many bytes are no longer kept.
    fn let_go(&self, kept: &mut Kept, bytes: usize) {
        kept.held -= bytes;
        self.connection.room.let_go(bytes as u64);
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let held = self.kept.get_mut().held;
        self.connection.room.let_go(held as u64);
    }
}

/// One try's reading of the body. The default is no body.
#[derive(Debug, Default)]
pub struct UploadBody {
    upload: Option<Rc<Upload>>,
    /// In place of `upload`: a body of its own.
    copy: Option<Copied>,
    /// Frames read.
    at: usize,
    /// It is text that the instance is to get as bytes.
    text: Option<Decoder>,
}

#[derive(Debug)]
struct Copied {
    frames: Rc<[KeptFrame]>,
    size: SizeHint,
}

impl UploadBody {
    /// From the beginning.
    #[must_use]
    pub fn new(upload: Option<&Rc<Upload>>) -> Self {
        if let Some(upload) = upload {
            upload.read.set(0);
            upload.progress.begin_try(upload.connection.clock.now());
        }
        Self { upload: upload.cloned(), copy: None, at: 0, text: None }
    }
}

impl UploadBody {
    /// Turns text back into bytes on the way.
    #[must_use]
    pub fn decoded(mut self) -> Self {
        self.text = Some(Decoder::default());
        self
    }

    fn decode(
        &mut self,
        polled: Option<Result<Frame<Bytes>, UploadFault>>,
    ) -> Option<Result<Frame<Bytes>, UploadFault>> {
        let (Some(text), Some(upload)) = (&mut self.text, &self.upload) else { return polled };
        let decoded = match polled {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => text.piece(&data).map(|data| Some(Ok(Frame::data(data)))),
                Err(frame) => Some(Some(Ok(frame))),
            },
            None => text.is_whole().then_some(None),
            failed => Some(failed),
        };
        decoded.unwrap_or_else(|| {
            upload.progress.fail(Detail::ClientBody);
            Some(Err(UploadFault(Detail::ClientBody)))
        })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let this = self;
        let Some(upload) = &this.upload else {
            let frame = this.copy.as_ref().and_then(|copy| copy.frames.get(this.at)).cloned();
            this.at += 1;
            return Poll::Ready(frame.map(|frame| Ok(frame.into())));
        };
        let again = {
            let kept = upload.kept.borrow();
            this.at.checked_sub(kept.gone).and_then(|at| kept.frames.get(at).cloned())
        };
        if let Some(frame) = again {
            this.at += 1;
            upload.read.set(this.at);
            upload.progress.took_kept(upload.connection.clock.now());
            return Poll::Ready(Some(Ok(frame.into())));
        }
        if upload.is_whole() {
            return Poll::Ready(None);
        }
        let polled = upload.poll_source(cx);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            this.at += 1;
            upload.read.set(this.at);
        }
        polled
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let polled = self.poll_next(cx);
        if self.text.is_none() { polled } else { polled.map(|polled| self.decode(polled)) }
    }

    fn is_end_stream(&self) -> bool {
        let copied = self.copy.as_ref().is_none_or(|copy| self.at >= copy.frames.len());
        // That text ended in the middle is seen at its end.
        copied
            && self.text.as_ref().is_none_or(Decoder::is_whole)
            && self.upload.as_ref().is_none_or(|upload| {
                let kept = upload.kept.borrow();
                upload.is_whole() && self.at >= kept.gone + kept.frames.len()
            })
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.upload, &self.copy) {
            (Some(_), _) if self.text.is_some() => SizeHint::default(),
            (Some(upload), _) => upload.size,
            (None, Some(copy)) => copy.size,
            (None, None) => SizeHint::with_exact(0),
        }
    }
}

/// The client's body ended in a way that is the client's fault.
#[derive(Clone, Copy, Debug)]
pub struct UploadFault(pub Detail);

impl fmt::Display for UploadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.word())
    }
}

impl std::error::Error for UploadFault {}
