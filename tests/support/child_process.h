// ChildProcess: a program started by a test, killed at the latest with its object.
#ifndef THERMOCLINE_TESTS_SUPPORT_CHILD_PROCESS_H_
#define THERMOCLINE_TESTS_SUPPORT_CHILD_PROCESS_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/temporary_file.h"

namespace thermocline {

class ChildProcess {
 public:
  // `name` is that of the files its output goes to.
  ChildProcess(const std::string& name, std::vector<std::string> args)
      : out_(name + ".out"), err_(name + ".err") {
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out_.path().c_str(), flags, 0600);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err_.path().c_str(), flags, 0600);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ), 0) << args[0];
    posix_spawn_file_actions_destroy(&actions);
  }
  ~ChildProcess() {
    if (pid_ <= 0 || ended_) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void Signal(int signal) const { kill(pid_, signal); }
  // The exit status; -1, and a failure, for one that was killed or does not end.
  int Wait() {
    for (int i = 0; i < 6000 && !ended_; ++i) {
      ended_ = waitpid(pid_, &status_, WNOHANG) == pid_;
      if (!ended_) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_TRUE(ended_) << "the process does not end";
    return ended_ && WIFEXITED(status_) ? WEXITSTATUS(status_) : -1;
  }
  std::string out() const { return Read(out_.path()); }
  std::string err() const { return Read(err_.path()); }

 private:
  static std::string Read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }

  TemporaryFile out_, err_;
  pid_t pid_ = -1;
  bool ended_ = false;
  int status_ = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_CHILD_PROCESS_H_
