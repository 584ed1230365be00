// The processes of a data-parallel run, as the program that started them describes them in the environment.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace strobe::train {

struct World {
  int rank = 0;
  int size = 1;
  int local_rank = 0;                     // among the processes of this machine: which GPU to take
  int local_size = 1;                     // processes of this machine: they share its cores
  std::optional<int> cores;               // of this process, where the launcher gives it its own
  std::string master_addr = "127.0.0.1";  // where rank 0, or the launcher's agent, keeps the store
  int master_port = 0;
  bool launcher_keeps_store = false;  // torchrun's agent serves the store; no rank does
  std::optional<int> listening_fd;    // a socket already listening on master_port, which rank 0 inherits
  std::string attempt = "0";          // of a launcher that starts a failed run again: keeps the attempts' keys apart
};

/// The value of a variable, or null where it is not set.
using Environment = std::function<const char*(const char* name)>;

/// Reads, in this order,
///   RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT   torchrun, `--nproc`, or set by hand
///   OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE                       Open MPI's mpirun
///   SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_STEP_NODELIST              srun; SLURM_CPUS_PER_TASK: the cores
/// MASTER_ADDR and MASTER_PORT win wherever they are set. Without them the ranks of one machine meet at 127.0.0.1,
/// those of a Slurm step on the first host of its list; the port is derived from the job's id. One process without any
/// of these variables. Throws strobe::Error naming the variable that is missing or has no sense.
World world_from_environment(const Environment& environment);
World world_from_environment();  // of this process

/// The share of this machine's cores that a process may use, at least 1.
int cores_of_rank(const World& world);

/// The first host of Slurm's compressed list: "node[07-09,12],login" -> "node07".
std::string first_host(const std::string& node_list);

}  // namespace strobe::train
