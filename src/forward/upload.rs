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
use super::wait::after;
use crate::engine::time::Millis;
use crate::upstream::Received;

/// The client's body; shared by the tries of one request.
#[derive(Debug)]
pub struct Upload {
    source: RefCell<Received>,
    size: SizeHint,
    kept: RefCell<Kept>,
    connection: Rc<Connection>,
    /// Milliseconds between two pieces.
    idle: Cell<u64>,
    /// Frames that the try at hand has read.
    read: Cell<usize>,
    progress: Progress,
}

#[derive(Debug)]
struct Progress {
    bytes: Cell<u64>,
    /// When the last piece came, or when the waiting began.
    moved: Cell<Millis>,
    /// An instance asked for more and nothing was there.
    waiting: Cell<bool>,
    ended: Cell<bool>,
    fault: Cell<Option<Detail>>,
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
    #[must_use]
    pub fn new(source: Received, connection: &Rc<Connection>, idle: u64, keep: usize) -> Rc<Self> {
        let size = source.size_hint();
        // A body that says it is larger will not fit: nothing of it need be held.
        let limit = if size.lower() > keep as u64 { 0 } else { keep };
        Rc::new(Self {
            source: RefCell::new(source),
            size,
            kept: RefCell::new(Kept { limit, ..Kept::default() }),
            connection: Rc::clone(connection),
            idle: Cell::new(idle),
            read: Cell::new(0),
            progress: Progress {
                bytes: Cell::new(0),
                moved: Cell::new(connection.clock.now()),
                waiting: Cell::new(false),
                ended: Cell::new(false),
                fault: Cell::new(None),
            },
        })
    }

    /// Changes how long the client may take between two pieces. Milliseconds.
    pub fn be_patient(&self, idle: u64) {
        self.idle.set(idle);
    }

    /// Whether another try would see the whole body.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.progress.fault.get().is_none() && self.kept.borrow().gone == 0
    }

    /// No other try will come: nothing is kept from here on but what the try at hand has still to read.
    pub fn forget(&self) {
        let mut kept = self.kept.borrow_mut();
        kept.limit = 0;
        if !self.progress.ended.get() {
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
        self.progress.bytes.get()
    }

    /// Whether all of it was read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.progress.ended.get()
    }

    /// What the client did wrong with its body, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<Detail> {
        self.progress.fault.get()
    }

    /// Until when an instance has to answer or to take more: `first_byte` after the last piece, else `idle`
    /// (between two pieces). While the client is the one waited for, its own limit counts.
    #[must_use]
    pub fn deadline(&self, first_byte: u64, idle: u64) -> Millis {
        let progress = &self.progress;
        match (progress.ended.get(), progress.waiting.get()) {
            (true, _) => after(progress.moved.get(), first_byte),
            (false, true) => NEVER,
            (false, false) => after(progress.moved.get(), idle),
        }
    }

    fn poll_source(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let progress = &self.progress;
        let now = self.connection.clock.now();
        let polled = Pin::new(&mut *self.source.borrow_mut()).poll_frame(cx);
        match polled {
            Poll::Pending => {
                if !progress.waiting.replace(true) {
                    progress.moved.set(now);
                }
                let deadline = after(progress.moved.get(), self.idle.get());
                if now >= deadline {
                    return self.fail(Detail::ClientTimeout);
                }
                self.connection.upload_deadline.set(deadline);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.moved(now);
                if let Some(data) = frame.data_ref() {
                    progress.bytes.set(progress.bytes.get() + data.len() as u64);
                }
                progress.ended.set(frame.is_trailers() || self.source.borrow().is_end_stream());
                Poll::Ready(Some(Ok(self.keep(frame))))
            }
            Poll::Ready(Some(Err(_))) => self.fail(Detail::ClientBody),
            Poll::Ready(None) => {
                self.moved(now);
                progress.ended.set(true);
                Poll::Ready(None)
            }
        }
    }

    fn moved(&self, now: Millis) {
        self.progress.moved.set(now);
        self.progress.waiting.set(false);
        self.connection.upload_deadline.set(NEVER);
    }

    fn fail(&self, detail: Detail) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        self.progress.fault.set(Some(detail));
        self.connection.upload_deadline.set(NEVER);
        Poll::Ready(Some(Err(UploadFault(detail))))
    }

    fn keep(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let mut kept = self.kept.borrow_mut();
        let size = frame.data_ref().map_or(0, Bytes::len);
        kept.size += size;
        if kept.size > kept.limit {
            kept.limit = 0;
            kept.gone += kept.frames.len() + 1;
            kept.frames.clear();
            let held = kept.held;
            self.let_go(&mut kept, held);
            return frame;
        }
        match frame.into_data() {
            Ok(data) => {
                kept.frames.push(KeptFrame::Data(data.clone()));
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
            // This try's instance has its own time to answer.
            if upload.is_whole() {
                upload.progress.moved.set(upload.connection.clock.now());
            }
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
            upload.progress.fault.set(Some(Detail::ClientBody));
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
            return Poll::Ready(Some(Ok(frame.into())));
        }
        if upload.progress.ended.get() {
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
                upload.progress.ended.get() && self.at >= kept.gone + kept.frames.len()
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
