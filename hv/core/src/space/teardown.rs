//! Taking a space down in bounded slices: every page handed to the caller, every table freed but the roots, which stay,
//! empty, until nobody can find the domain any more.

use super::format::TableFormat;
use super::format::{present, target};
use super::table::{ENTRIES, RadixTable, TableBudget};
use super::{AddressSpace, Flushed};
use crate::domain::Env;
use crate::frames::FrameTable;
use crate::ids::Mfn;
use crate::machine::Machine;

/// Whether sliced work is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "there may be more to do"]
pub enum Progress {
    /// Call again.
    More,
    /// All done.
    Done,
}

const LEVELS_MAX: usize = 4;

/// A walk over a tree that frees each table when its last entry is dealt with.
#[derive(Debug, Default)]
struct Walk {
    /// The tables from the root down to the one being emptied, with the next entry of each.
    path: [(Mfn, u64); LEVELS_MAX],
    /// Tables on the path; 0 before the start.
    depth: usize,
    finished: bool,
}

impl Walk {
    fn top(&mut self) -> Option<&mut (Mfn, u64)> {
        self.path.get_mut(self.depth.checked_sub(1)?)
    }

    fn descend(&mut self, table: Mfn) {
        if let Some(slot) = self.path.get_mut(self.depth) {
            *slot = (table, 0);
            self.depth = self.depth.wrapping_add(1);
        }
    }

    /// Looks at up to `steps` entries. Returns what is left of them.
    fn run<F: TableFormat, M: Machine>(
        &mut self,
        env: &Env<'_, M>,
        tree: &RadixTable<F>,
        budget: &mut TableBudget,
        mut steps: u32,
        mut page: impl FnMut(Flushed),
    ) -> u32 {
        if self.depth == 0 && !self.finished {
            self.descend(tree.root);
        }
        let levels = tree.format.levels() as usize;
        while steps > 0 && !self.finished {
            steps = steps.wrapping_sub(1);
            let depth = self.depth;
            let Some((table, next)) = self.top() else { break };
            if *next == ENTRIES {
                let table = *table;
                self.ascend(table, budget, env.frames);
                continue;
            }
            let at = table.at(*next << 3);
            *next = next.wrapping_add(1);
            let entry = env.machine.load_u64(at);
            if !present(entry) {
                continue;
            }
            // Unlinked first: whoever walks the space from here on finds nothing.
            tree.store(at, 0, env.machine);
            if depth < levels {
                self.descend(target(entry));
            } else {
                page(Flushed(tree.format.page(entry)));
            }
        }
        steps
    }

    fn ascend(&mut self, table: Mfn, budget: &mut TableBudget, frames: &FrameTable) {
        if self.depth > 1 {
            budget.free(table, frames);
        }
        self.depth = self.depth.saturating_sub(1);
        self.finished = self.depth == 0;
    }
}

/// How far the teardown of a space has come.
#[derive(Debug, Default)]
pub struct Teardown {
    flushed: bool,
    cpu: Walk,
    iommu: Walk,
}

impl AddressSpace {
    /// Takes the whole space down in slices, looking at up to `steps` entries in each; every page goes to `page`. The
    /// caller has made sure that no CPU and no device uses the space any more; the first slice flushes what the caches
    /// still hold.
    pub fn tear_down<M: Machine>(
        &mut self,
        env: &Env<'_, M>,
        state: &mut Teardown,
        steps: u32,
        page: impl FnMut(Flushed),
    ) -> Progress {
        if !state.flushed {
            // No CPU runs in the space and no device is attached, so nothing can be cached anew after this.
            env.machine.flush_all(self.domain, self.scope());
            state.flushed = true;
        }
        let mut left = steps;
        if let Some(iommu) = &self.iommu {
            let same_as_in_the_cpu_table = |page: Flushed| drop(page);
            left = state.iommu.run(env, iommu, &mut self.budget, left, same_as_in_the_cpu_table);
        }
        state.cpu.run(env, &self.cpu, &mut self.budget, left, page);
        let iommu_done = self.iommu.is_none() || state.iommu.finished;
        if iommu_done && state.cpu.finished { Progress::Done } else { Progress::More }
    }
}
