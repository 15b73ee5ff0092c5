// Which mutant is switched on, and which ones the program passed: the first lines of every
// rewritten source. Only in the copy that generate.py makes.
#ifndef THERMOCLINE_TESTS_MUTATION_MUTANT_SWITCH_H_
#define THERMOCLINE_TESTS_MUTATION_MUTANT_SWITCH_H_

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

// THERMOCLINE_MUTANT: the number of a mutant; without it the program is as it was.
inline const int thermocline_mutant = [] {
  const char* number = std::getenv("THERMOCLINE_MUTANT");
  return number == nullptr ? 0 : std::atoi(number);
}();

// THERMOCLINE_MUTANT_TRACE: a file with a byte for each mutant, which becomes 1 where the program
// comes past it. A shared mapping, because a server ends by a signal.
inline char* const thermocline_trace = [] {
  const char* path = std::getenv("THERMOCLINE_MUTANT_TRACE");
  const int file = path == nullptr ? -1 : open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return static_cast<char*>(nullptr);
  const off_t bytes = lseek(file, 0, SEEK_END);
  void* memory =
      mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
}();

inline bool thermocline_mutant_is(int number) {
  if (thermocline_trace != nullptr) thermocline_trace[number] = 1;
  return number == thermocline_mutant;
}

#endif  // THERMOCLINE_TESTS_MUTATION_MUTANT_SWITCH_H_
