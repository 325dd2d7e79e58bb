//! Captures: packets as they were captured, as a pcapng file that Wireshark reads. Nothing in it is
//! rebuilt: bytes begin at the network header, for that is where they were recorded from.
//!
//! Knows the model and the file's format; neither recordings nor what is said of a packet.

use std::{
    borrow::Cow,
    io::{self, Write},
    time::Duration,
};

use pcap_file::{
    DataLink,
    pcapng::{
        PcapNgBlock, PcapNgWriteError, PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{
                InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
            },
            opt_common::CommonOption,
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

use crate::model::{Packet, Place, WallNs};

/// Most bytes of one packet that are captured, headers included (`CAPTURE_LIMIT` of tracer-ebpf).
pub const SNAPLEN: u32 = 4095;

/// Who captured what follows.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// The machine's architecture.
    pub machine: &'a str,
    /// Its kernel.
    pub system: &'a str,
    /// The program that captured.
    pub program: &'a str,
    /// What else is to be said of it.
    pub comment: &'a str,
}

/// A packet and what is said of it.
#[derive(Clone, Copy, Debug)]
pub struct Capture<'a> {
    /// When it was seen.
    pub wall: WallNs,
    /// The packet.
    pub packet: &'a Packet,
    /// A comment each.
    pub comments: &'a [String],
}

/// A file being written.
pub struct Pcapng<W: Write> {
    writer: PcapNgWriter<W>,
    interfaces: u32,
}

impl<W: Write> Pcapng<W> {
    /// A file whose first section is `section`.
    ///
    /// # Errors
    /// `out` cannot be written to.
    pub fn new(out: W, section: &Section<'_>) -> io::Result<Self> {
        let writer = PcapNgWriter::with_section_header(out, header(section));
        Ok(Self {
            writer: writer.map_err(refused)?,
            interfaces: 0,
        })
    }

    /// Begins another section; it has no interfaces yet.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub fn section(&mut self, section: &Section<'_>) -> io::Result<()> {
        self.interfaces = 0;
        self.write(header(section))
    }

    /// Tells of a device; its number in this section.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub fn interface(&mut self, name: &str, description: &str) -> io::Result<u32> {
        self.write(InterfaceDescriptionBlock {
            linktype: DataLink::RAW,
            snaplen: SNAPLEN,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfDescription(Cow::Borrowed(description)),
                InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
            ],
        })?;
        let number = self.interfaces;
        self.interfaces += 1;
        Ok(number)
    }

    /// Writes a packet that was seen at the interface of that number.
    ///
    /// # Errors
    /// The file cannot be written to.
    pub fn packet(&mut self, interface: u32, capture: &Capture<'_>) -> io::Result<()> {
        let packet = capture.packet;
        let mut options = Vec::new();
        if let Some(direction) = direction(packet.place) {
            options.push(EnhancedPacketOption::Flags(direction));
        }
        options.extend(capture.comments.iter().map(|comment| {
            EnhancedPacketOption::Common(CommonOption::Comment(Cow::Borrowed(comment)))
        }));
        let data = [&packet.headers[..], &packet.payload].concat();
        self.write(EnhancedPacketBlock {
            interface_id: interface,
            timestamp: Duration::from_nanos(u64::try_from(capture.wall.0).unwrap_or(0)),
            original_len: original_len(packet),
            data: Cow::Owned(data),
            options,
        })
    }

    /// The file itself.
    pub fn into_inner(self) -> W {
        self.writer.into_inner()
    }

    fn write<'a>(&mut self, block: impl PcapNgBlock<'a>) -> io::Result<()> {
        let written = self.writer.write_block(&block.into_block());
        written.map(drop).map_err(refused)
    }
}

/// How long the packet was, from its network header on.
pub fn original_len(packet: &Packet) -> u32 {
    let headers = u32::try_from(packet.headers.len()).unwrap_or(u32::MAX);
    let captured = packet.headers.len() + packet.payload.len();
    let captured = u32::try_from(captured).unwrap_or(u32::MAX);
    // Headers cut short, and what a fragment has behind them, are told by the IP header alone.
    let told = total_len(&packet.headers).unwrap_or(0);
    headers
        .saturating_add(packet.payload_len)
        .max(captured)
        .max(told)
}

/// The length that an IP header tells (RFC 791, section 3.1; RFC 8200, section 3); 0 where segments are
/// joined beyond what it can tell.
fn total_len(headers: &[u8]) -> Option<u32> {
    let word = |at: usize| Some(u16::from_be_bytes(*headers.get(at..)?.first_chunk()?));
    match headers.first()? >> 4 {
        4 => word(2).map(u32::from),
        6 => word(4).map(|len| u32::from(len) + 40),
        _ => None,
    }
}

/// The two lowest bits of `epb_flags`: inbound 1, outbound 2.
fn direction(place: Place) -> Option<u32> {
    match place {
        Place::Received => Some(1),
        Place::Queued => Some(2),
        Place::Dropped { .. } | Place::Refused { .. } => None,
    }
}

fn header<'a>(section: &Section<'a>) -> SectionHeaderBlock<'a> {
    SectionHeaderBlock {
        options: vec![
            SectionHeaderOption::Hardware(Cow::Borrowed(section.machine)),
            SectionHeaderOption::OS(Cow::Borrowed(section.system)),
            SectionHeaderOption::UserApplication(Cow::Borrowed(section.program)),
            SectionHeaderOption::Common(CommonOption::Comment(Cow::Borrowed(section.comment))),
        ],
        ..SectionHeaderBlock::default()
    }
}

/// A pipe that was closed stays one.
fn refused(error: PcapNgWriteError) -> io::Error {
    match error {
        PcapNgWriteError::Io(error) => error,
        error => io::Error::other(error),
    }
}
