//! Drops counted in the kernel: two tables, of which one fills while the other is read.

use std::{net::IpAddr, thread::sleep, time::Duration};

use aya::maps::{Array, MapData, PerCpuHashMap};
use tracer_ebpf::record;

use super::{
    Error, Kernel, Options,
    load::{Object, Output},
};
use crate::{
    model::drops::{DropCount, DropGroup},
    probes::drop,
};

/// How long a program may still add to a table after the other has its turn.
const SETTLE: Duration = Duration::from_millis(2);

type Table = PerCpuHashMap<MapData, record::DropGroup, record::DropCount>;

/// Both tables.
pub struct DropTables {
    tables: [(&'static str, Table); 2],
    turn: Array<MapData, u32>,
    /// Index of the table that fills.
    fills: usize,
}

impl DropTables {
    /// Loads the one program that counts drops. Those to addresses in `vips` are grouped by
    /// address and port also where nothing translates them.
    ///
    /// # Errors
    /// As [`Kernel::load`].
    pub fn load(vips: &[(IpAddr, u8)]) -> Result<(Kernel, Self), Error> {
        let options = Options {
            dns_ports: Vec::new(),
            connections: false,
            vips: vips.to_vec(),
            ring_bytes: 4096,
            paths: false,
            headers: false,
            log: false,
        };
        let mut object = Object::open(&options, Output::DropTables, &[drop::PROBE])?;
        let mut table = |name| {
            let map = object.take_map(name)?;
            let table = Table::try_from(map).map_err(|source| Error::Map { name, source })?;
            Ok::<_, Error>((name, table))
        };
        let tables = [table("DROPS_EVEN")?, table("DROPS_ODD")?];
        let name = "DROPS_TURN";
        let turn = Array::try_from(object.take_map(name)?)
            .map_err(|source| Error::Map { name, source })?;
        let tables = Self {
            tables,
            turn,
            fills: 0,
        };
        Ok((object.attach(), tables))
    }

    /// Takes what was counted since the last call.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn take(&mut self, add: &mut impl FnMut(DropGroup, DropCount)) -> Result<(), Error> {
        let (read, fills) = (self.fills, 1 - self.fills);
        let name = "DROPS_TURN";
        self.turn
            .set(0, u32::from(fills == 1), 0)
            .map_err(|source| Error::Map { name, source })?;
        self.fills = fills;
        sleep(SETTLE);
        let (name, table) = &mut self.tables[read];
        let name = *name;
        let failed = |source| Error::Map { name, source };
        let groups = table
            .keys()
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        for group in groups {
            for count in table.get(&group, 0).map_err(failed)?.iter() {
                if count.packets > 0 {
                    add(drop::group(&group), drop::count(count));
                }
            }
            table.remove(&group).map_err(failed)?;
        }
        Ok(())
    }
}
