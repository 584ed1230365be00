#include "train/distributed/world.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <string_view>
#include <thread>

#include "strobe/types.h"

namespace strobe::train {
namespace {

constexpr int kMostRanks = 1 << 20;
constexpr int kLargestPort = 65535;
// Ports that are derived from a job's id: above the registered services, below Linux's ephemeral ports.
constexpr int kFirstDerivedPort = 20000;
constexpr int kDerivedPorts = 10000;

class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  bool has(const char* name) const {
    const char* value = environment_(name);
    return value != nullptr && *value != '\0';
  }

  std::string text(const char* name) const {
    if (!has(name)) throw Error(std::string("environment: expected ") + name + " to be set" + because_);
    return environment_(name);
  }
  std::string text_or(const char* name, const std::string& fallback) const { return has(name) ? text(name) : fallback; }

  int number(const char* name, int least, int most) const {
    const std::string value = text(name);
    int result = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
    if (error != std::errc() || end != value.data() + value.size() || result < least || result > most) {
      throw Error(std::string("environment: ") + name + ": expected an integer from " + std::to_string(least) + " to " +
                  std::to_string(most) + ", found \"" + value + "\"");
    }
    return result;
  }
  int number_or(const char* name, int least, int most, int fallback) const {
    return has(name) ? number(name, least, most) : fallback;
  }

  /// What the error about a missing variable adds.
  void explain(const char* present) { because_ = std::string(", since ") + present + " is"; }

 private:
  const Environment& environment_;
  std::string because_;
};

/// FNV-1a: the same port on every rank and machine.
int derived_port(const std::string& job) {
  uint32_t hash = 2166136261u;
  for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return kFirstDerivedPort + static_cast<int>(hash % kDerivedPorts);
}

void read_ranks(const Variables& variables, const char* rank, const char* size, const char* local_rank, World& world) {
  world.size = variables.number(size, 1, kMostRanks);
  world.rank = variables.number(rank, 0, world.size - 1);
  world.local_rank = variables.number(local_rank, 0, world.size - 1);
}

World torchrun_world(Variables& variables) {
  variables.explain("RANK");
  World world;
  read_ranks(variables, "RANK", "WORLD_SIZE", "LOCAL_RANK", world);
  world.local_size = variables.number_or("LOCAL_WORLD_SIZE", 1, world.size, world.size);
  world.master_addr = variables.text("MASTER_ADDR");
  world.master_port = variables.number("MASTER_PORT", 1, kLargestPort);
  world.launcher_keeps_store = variables.text_or("TORCHELASTIC_USE_AGENT_STORE", "False") == "True";
  world.attempt = variables.text_or("TORCHELASTIC_RESTART_COUNT", "0");
  if (variables.has("STROBE_STORE_FD")) {
    world.listening_fd = variables.number("STROBE_STORE_FD", 0, std::numeric_limits<int>::max());
  }
  return world;
}

World open_mpi_world(Variables& variables) {
  variables.explain("OMPI_COMM_WORLD_RANK");
  World world;
  read_ranks(variables, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", world);
  world.local_size = variables.number("OMPI_COMM_WORLD_LOCAL_SIZE", 1, world.size);
  // mpirun does not say which machine rank 0 runs on.
  if (world.local_size < world.size || variables.has("MASTER_ADDR")) world.master_addr = variables.text("MASTER_ADDR");
  const std::string job = variables.text_or("PMIX_NAMESPACE", variables.text_or("OMPI_MCA_ess_base_jobid", ""));
  world.master_port = variables.number_or("MASTER_PORT", 1, kLargestPort, derived_port(job));
  return world;
}

/// How many tasks run on machine `node`, of "2(x3),1": two each on the first three, one on the fourth.
int tasks_of_node(const Variables& variables, const char* name, int node, int tasks) {
  const std::string list = variables.text(name);
  const auto bad = [&] { return Error(std::string("environment: ") + name + ": cannot read \"" + list + "\""); };
  const char* at = list.data();
  const char* const end = at + list.size();
  const auto read = [&] {
    int value = 0;
    const auto [rest, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 1 || value > tasks) throw bad();
    at = rest;
    return value;
  };
  while (true) {
    const int count = read();
    int repeat = 1;
    if (std::string_view(at, end).starts_with("(x")) {
      at += 2;
      repeat = read();
      if (at == end || *at++ != ')') throw bad();
    }
    if ((node -= repeat) < 0) return count;
    if (at == end || *at++ != ',') throw bad();
  }
}

World slurm_world(Variables& variables) {
  variables.explain("SLURM_PROCID");
  World world;
  const char* size = variables.has("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  read_ranks(variables, "SLURM_PROCID", size, "SLURM_LOCALID", world);
  const int node = variables.number_or("SLURM_NODEID", 0, kMostRanks, 0);
  world.local_size = variables.has("SLURM_STEP_TASKS_PER_NODE")
                         ? tasks_of_node(variables, "SLURM_STEP_TASKS_PER_NODE", node, world.size)
                         : variables.number_or("SLURM_NTASKS_PER_NODE", 1, world.size, world.size);
  if (variables.has("SLURM_CPUS_PER_TASK")) world.cores = variables.number("SLURM_CPUS_PER_TASK", 1, kMostRanks);
  world.master_addr = variables.text_or("MASTER_ADDR", first_host(variables.text("SLURM_STEP_NODELIST")));
  const std::string job = variables.text_or("SLURM_JOB_ID", "") + "." + variables.text_or("SLURM_STEP_ID", "");
  world.master_port = variables.number_or("MASTER_PORT", 1, kLargestPort, derived_port(job));
  return world;
}

}  // namespace

World world_from_environment(const Environment& environment) {
  Variables variables(environment);
  if (variables.has("RANK")) return torchrun_world(variables);
  if (variables.has("OMPI_COMM_WORLD_RANK")) return open_mpi_world(variables);
  // A batch script has SLURM_PROCID and SLURM_NTASKS too, but is one process; srun's steps alone have the node list.
  if (variables.has("SLURM_PROCID") && variables.has("SLURM_STEP_NODELIST")) return slurm_world(variables);
  return {};
}

World world_from_environment() {
  return world_from_environment([](const char* name) { return std::getenv(name); });
}

int cores_of_rank(const World& world) {
  const int all = static_cast<int>(std::thread::hardware_concurrency());
  return world.cores.value_or(std::max(1, all / world.local_size));
}

std::string first_host(const std::string& node_list) {
  const auto bracket = node_list.find('[');
  const auto comma = node_list.find(',');
  if (bracket == std::string::npos || comma < bracket) return node_list.substr(0, comma);
  const auto first_end = node_list.find_first_of(",-]", bracket + 1);
  const auto close = node_list.find(']', bracket);
  if (first_end == std::string::npos || close == std::string::npos) {
    throw Error("environment: SLURM_STEP_NODELIST: expected a list of hosts such as \"node[01-04]\", found \"" +
                node_list + "\"");
  }
  const auto suffix_end = node_list.find(',', close);
  return node_list.substr(0, bracket) + node_list.substr(bracket + 1, first_end - bracket - 1) +
         node_list.substr(close + 1, suffix_end == std::string::npos ? std::string::npos : suffix_end - close - 1);
}

}  // namespace strobe::train
