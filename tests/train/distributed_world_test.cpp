#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "strobe/types.h"
#include "tests/message_of.h"
#include "train/distributed/world.h"

namespace strobe::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

World world_of(const Variables& variables) {
  return world_from_environment([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

std::string error_of(const Variables& variables) {
  return message_of<Error>([&] { world_of(variables); });
}

Variables with(Variables variables, const std::string& name, const std::string& value) {
  variables[name] = value;
  return variables;
}

Variables without(Variables variables, const std::string& name) {
  variables.erase(name);
  return variables;
}

const Variables kTorchrun = {{"RANK", "5"},
                             {"WORLD_SIZE", "8"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "4"},
                             {"MASTER_ADDR", "10.0.0.7"},
                             {"MASTER_PORT", "29500"}};
const Variables kTorchrunsOwn = {{"TORCHELASTIC_USE_AGENT_STORE", "True"}, {"TORCHELASTIC_RESTART_COUNT", "2"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "1"},
                            {"OMPI_COMM_WORLD_SIZE", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                            {"PMIX_NAMESPACE", "1638924289"}};
const Variables kSlurm = {{"SLURM_PROCID", "6"},
                          {"SLURM_NTASKS", "7"},
                          {"SLURM_LOCALID", "0"},
                          {"SLURM_NODEID", "3"},
                          {"SLURM_STEP_TASKS_PER_NODE", "2(x3),1"},
                          {"SLURM_STEP_NODELIST", "gpu[07-09,12]"},
                          {"SLURM_JOB_ID", "4711"},
                          {"SLURM_STEP_ID", "0"}};

TEST(World, IsOneProcessWithoutALauncher) {
  const World world = world_of({});
  EXPECT_EQ(world.rank, 0);
  EXPECT_EQ(world.size, 1);
  EXPECT_EQ(world.local_size, 1);
}

TEST(World, OfTorchrun) {
  World world = world_of(kTorchrun);
  EXPECT_EQ(world.rank, 5);
  EXPECT_EQ(world.size, 8);
  EXPECT_EQ(world.local_rank, 1);
  EXPECT_EQ(world.local_size, 4);
  EXPECT_EQ(world.master_addr, "10.0.0.7");
  EXPECT_EQ(world.master_port, 29500);
  EXPECT_FALSE(world.launcher_keeps_store);
  Variables own = kTorchrun;
  own.insert(kTorchrunsOwn.begin(), kTorchrunsOwn.end());
  world = world_of(own);
  EXPECT_TRUE(world.launcher_keeps_store);
  EXPECT_EQ(world.attempt, "2");
}

TEST(World, OfOpenMpi) {
  const World world = world_of(kOpenMpi);
  EXPECT_EQ(world.rank, 1);
  EXPECT_EQ(world.size, 2);
  EXPECT_EQ(world.local_rank, 1);
  EXPECT_EQ(world.local_size, 2);
  EXPECT_EQ(world.master_addr, "127.0.0.1");
  EXPECT_EQ(world.master_port, world_of(with(kOpenMpi, "OMPI_COMM_WORLD_RANK", "0")).master_port);
  EXPECT_NE(world.master_port, world_of(with(kOpenMpi, "PMIX_NAMESPACE", "1638924290")).master_port);
  const Variables spread = with(with(kOpenMpi, "OMPI_COMM_WORLD_SIZE", "4"), "MASTER_ADDR", "first");
  EXPECT_EQ(world_of(spread).master_addr, "first");
  EXPECT_THAT(error_of(without(spread, "MASTER_ADDR")), HasSubstr("MASTER_ADDR"));
}

TEST(World, OfSlurm) {
  const World world = world_of(kSlurm);
  EXPECT_EQ(world.rank, 6);
  EXPECT_EQ(world.size, 7);
  EXPECT_EQ(world.local_rank, 0);
  EXPECT_EQ(world.local_size, 1);
  EXPECT_EQ(world_of(with(kSlurm, "SLURM_NODEID", "2")).local_size, 2);
  EXPECT_EQ(world.master_addr, "gpu07");
  EXPECT_GT(world.master_port, 1024);
  EXPECT_NE(world.master_port, world_of(with(kSlurm, "SLURM_JOB_ID", "4712")).master_port);
  EXPECT_EQ(world_of(with(kSlurm, "SLURM_STEP_NUM_TASKS", "9")).size, 9);
  const World told = world_of(with(with(kSlurm, "MASTER_ADDR", "other"), "MASTER_PORT", "1234"));
  EXPECT_EQ(told.master_addr, "other");
  EXPECT_EQ(told.master_port, 1234);
}

TEST(World, ABatchScriptOfSlurmIsOneProcess) {
  EXPECT_EQ(world_of({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_JOB_ID", "4711"}}).size, 1);
}

TEST(World, LaunchersInsideSlurmComeFirst) {
  Variables both = kSlurm;
  both.insert(kOpenMpi.begin(), kOpenMpi.end());
  EXPECT_EQ(world_of(both).size, 2);
  both.insert(kTorchrun.begin(), kTorchrun.end());
  EXPECT_EQ(world_of(both).size, 8);
}

TEST(World, NamesTheVariableThatIsMissing) {
  for (const char* name : {"WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}) {
    EXPECT_THAT(error_of(without(kTorchrun, name)), AllOf(HasSubstr(name), HasSubstr("since RANK is"))) << name;
  }
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"}) {
    EXPECT_THAT(error_of(without(kOpenMpi, name)), HasSubstr(name)) << name;
  }
  for (const char* name : {"SLURM_NTASKS", "SLURM_LOCALID"}) {
    EXPECT_THAT(error_of(without(kSlurm, name)), HasSubstr(name)) << name;
  }
}

TEST(World, NamesTheVariableThatHasNoSense) {
  EXPECT_THAT(error_of(with(kTorchrun, "RANK", "8")), HasSubstr("RANK: expected an integer from 0 to 7, found \"8\""));
  EXPECT_THAT(error_of(with(kTorchrun, "WORLD_SIZE", "two")), HasSubstr("WORLD_SIZE: expected an integer"));
  EXPECT_THAT(error_of(with(kTorchrun, "MASTER_PORT", "70000")), HasSubstr("MASTER_PORT"));
  EXPECT_THAT(error_of(with(kOpenMpi, "OMPI_COMM_WORLD_LOCAL_RANK", "-1")), HasSubstr("OMPI_COMM_WORLD_LOCAL_RANK"));
  EXPECT_THAT(error_of(with(kSlurm, "SLURM_STEP_TASKS_PER_NODE", "2(x3")), HasSubstr("SLURM_STEP_TASKS_PER_NODE"));
}

TEST(World, FirstHostOfSlurmsLists) {
  EXPECT_EQ(first_host("login"), "login");
  EXPECT_EQ(first_host("a,b"), "a");
  EXPECT_EQ(first_host("node[07-09,12],login"), "node07");
  EXPECT_EQ(first_host("node[3,5]"), "node3");
  EXPECT_EQ(first_host("rack1-n[001-128].cluster"), "rack1-n001.cluster");
  EXPECT_EQ(first_host("head,node[1-2]"), "head");
  EXPECT_THROW(first_host("node[1"), Error);
}

}  // namespace
}  // namespace strobe::train
