//! What sockets send: reading in turns, whole frames out of the bytes, fragments, control frames and their limits.

use std::io::{self, Read};

use super::session::{CONTROLS_PER_10S, FRAMES_PER_10S, Phase, Session};
use super::worker::Worker;
use super::ws::{self, FrameKind, Parsed};
use crate::protocol::{CloseCode, frame};
use crate::telemetry::metrics;

/// Bytes read at once.
const SCRATCH: usize = 16 << 10;
/// Longest header of a client's frame (RFC 6455, 5.2).
const FRAME_HEADER: usize = 14;
/// Bytes read from one socket in one turn; the rest waits for the next turn.
const TURN_BYTES: usize = 64 << 10;
/// By how much a message in several frames grows when it is full, bytes.
const FRAGMENT_STEP: usize = 4 << 10;

impl Worker {
    pub(super) fn read(&mut self, slot: u32, session: &mut Session) {
        if session.phase == Phase::Closing {
            return self.discard(slot, session);
        }
        // The worker's buffer holds the largest frame and one read; what is left of it afterwards goes to the session.
        let mut buffer = std::mem::take(&mut self.scratch);
        buffer.resize(self.shared.options.frame_bytes + FRAME_HEADER + SCRATCH, 0);
        let kept = std::mem::take(&mut session.partial);
        let mut filled = kept.len().min(buffer.len());
        buffer[..filled].copy_from_slice(&kept[..filled]);
        drop(kept);
        let mut taken = 0;
        let mut drained = false;
        loop {
            let used = self.handle_input(slot, session, &mut buffer[..filled]);
            buffer.copy_within(used..filled, 0);
            filled -= used;
            if session.paused || session.phase == Phase::Closing || drained {
                break;
            }
            if taken >= TURN_BYTES {
                self.mark_readable(slot, session);
                break;
            }
            let room = (filled + SCRATCH).min(buffer.len());
            match session.socket.read(&mut buffer[filled..room]) {
                Ok(0) => {
                    self.abandon(slot, session);
                    break;
                }
                Ok(count) => {
                    // Less than there was room for: the kernel has no more (epoll(7), edge-triggered streams), but for
                    // the end of the stream, which comes by itself.
                    drained = count < room - filled && !session.ended;
                    filled += count;
                    taken += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.abandon(slot, session);
                    break;
                }
            }
        }
        if session.phase != Phase::Closing && filled > 0 {
            session.partial = buffer[..filled].to_vec();
        }
        self.scratch = buffer;
    }

    /// After the close frame: input is thrown away until the peer closes.
    pub(super) fn discard(&mut self, slot: u32, session: &mut Session) {
        let mut sink = [0; 4096];
        for _ in 0..16 {
            match session.socket.read(&mut sink) {
                Ok(0) => {
                    session.deadline_ms = 0;
                    return;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    session.deadline_ms = 0;
                    return;
                }
            }
        }
        self.mark_readable(slot, session);
    }

    /// Handles whole frames at the front of `buffer`; returns how much of it is done with.
    pub(super) fn handle_input(&mut self, slot: u32, session: &mut Session, buffer: &mut [u8]) -> usize {
        let mut at = 0;
        session.paused = false;
        while at < buffer.len() && session.phase != Phase::Closing {
            if session.is_full() {
                session.paused = true;
                break;
            }
            match ws::parse(&mut buffer[at..], self.shared.options.frame_bytes) {
                Ok(Parsed::Incomplete { .. }) => break,
                Ok(Parsed::Frame { kind, fin, start, end }) => {
                    metrics().frames_received.inc();
                    self.handle_frame(slot, session, kind, fin, &buffer[at + start..at + end]);
                    at += end;
                }
                Err(code) => self.close(slot, session, code, None),
            }
        }
        at
    }

    pub(super) fn handle_frame(
        &mut self,
        slot: u32,
        session: &mut Session,
        kind: FrameKind,
        fin: bool,
        payload: &[u8],
    ) {
        session.roll_window(self.now_ms);
        if self.is_too_fast(slot, session) {
            return;
        }
        match kind {
            FrameKind::Text if session.fragments.is_some() => {
                self.close(slot, session, CloseCode::ProtocolViolation, None);
            }
            FrameKind::Text if fin => self.text(slot, session, payload),
            FrameKind::Text => session.fragments = Some(Box::new(payload.to_vec())),
            FrameKind::Continuation => self.continuation(slot, session, fin, payload),
            FrameKind::Ping | FrameKind::Pong => {
                if self.is_flooding(slot, session) {
                    return;
                }
                if kind == FrameKind::Ping {
                    session.push(frame::pong(payload));
                    self.mark_dirty_session(slot, session);
                } else {
                    session.unanswered = 0;
                }
            }
            FrameKind::Close if ws::close_is_valid(payload) => self.close(slot, session, CloseCode::Normal, None),
            FrameKind::Close => self.close(slot, session, CloseCode::ProtocolViolation, None),
        }
    }

    /// Counts a frame of any kind, before it is looked at; a flood is closed. True when there is nothing more to do.
    pub(super) fn is_too_fast(&mut self, slot: u32, session: &mut Session) -> bool {
        session.frames = session.frames.saturating_add(1);
        let options = &self.shared.options;
        let too_fast = options.limits_on && session.frames > FRAMES_PER_10S + 2 * options.sends_per_10s;
        if too_fast {
            self.close(slot, session, CloseCode::TooMany, Some(10_000));
        }
        too_fast || session.phase == Phase::Closing
    }

    /// Counts a frame that carries nothing; a flood of them is closed.
    pub(super) fn is_flooding(&mut self, slot: u32, session: &mut Session) -> bool {
        session.controls = session.controls.saturating_add(1);
        let flooding = self.shared.options.limits_on && session.controls > CONTROLS_PER_10S;
        if flooding {
            self.close(slot, session, CloseCode::TooMany, Some(10_000));
        }
        flooding
    }

    pub(super) fn continuation(&mut self, slot: u32, session: &mut Session, fin: bool, payload: &[u8]) {
        let Some(mut message) = session.fragments.take() else {
            return self.close(slot, session, CloseCode::ProtocolViolation, None);
        };
        if message.len() + payload.len() > self.shared.options.frame_bytes {
            return self.close(slot, session, CloseCode::MessageTooBig, None);
        }
        if message.capacity() - message.len() < payload.len() {
            message.reserve_exact(payload.len() + FRAGMENT_STEP);
        }
        message.extend_from_slice(payload);
        if payload.is_empty() && !fin && self.is_flooding(slot, session) {
            return;
        }
        if fin {
            self.text(slot, session, &message);
        } else {
            session.fragments = Some(message);
        }
    }
}
