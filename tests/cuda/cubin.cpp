// The ELF file is the generic ABI's; names of sections and the attributes in .nv.info are those
// that `cuobjdump -elf` shows (EIATTR_...).
#include "cubin.h"

#include <elf.h>

#include <cstring>

namespace fake_cuda {
namespace {
constexpr uint16_t kMachine = 190;  // EM_CUDA
constexpr uint8_t kWithBytes = 4;   // EIFMT_SVAL: so many bytes follow; others have two, inline
enum : uint8_t { kRequiredThreads = 0x10, kParameter = 0x17, kRegisters = 0x2f };

template <typename T>
T at(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

class Reader {
 public:
  explicit Reader(const char* file) : file_(file), head_(at<Elf64_Ehdr>(file)) {}

  Cubin read() {
    Cubin cubin;
    cubin.capability = static_cast<int32_t>(head_.e_flags & 0xff);  // ELF ABI versions up to 7
    each_section([&](const std::string& name, const Elf64_Shdr&) {
      const std::string stem = ".text.";
      if (name.rfind(stem, 0) == 0) cubin.kernels.push_back({name.substr(stem.size())});
    });
    for (MachineCode& kernel : cubin.kernels) describe(kernel);
    return cubin;
  }

 private:
  Elf64_Shdr section(size_t index) const {
    return at<Elf64_Shdr>(file_ + head_.e_shoff + index * head_.e_shentsize);
  }
  template <typename Visit>
  void each_section(const Visit& visit) const {
    const char* names = file_ + section(head_.e_shstrndx).sh_offset;
    for (size_t i = 0; i < head_.e_shnum; i++) visit(names + section(i).sh_name, section(i));
  }

  std::string symbol(uint32_t index) const {
    std::string found;
    each_section([&](const std::string&, const Elf64_Shdr& table) {
      if (table.sh_type != SHT_SYMTAB) return;
      const auto entry = at<Elf64_Sym>(file_ + table.sh_offset + index * sizeof(Elf64_Sym));
      found = file_ + section(table.sh_link).sh_offset + entry.st_name;
    });
    return found;
  }

  void describe(MachineCode& kernel) const {
    each_section([&](const std::string& name, const Elf64_Shdr& found) {
      if (name == ".nv.shared." + kernel.name)
        kernel.shared_bytes = static_cast<uint32_t>(found.sh_size);
      if (name != ".nv.info" && name != ".nv.info." + kernel.name) return;
      const char* end = file_ + found.sh_offset + found.sh_size;
      for (const char* place = file_ + found.sh_offset; place < end;) {
        const auto format = at<uint8_t>(place), what = at<uint8_t>(place + 1);
        if (format == kWithBytes) note(kernel, what, place + 4);
        place += format == kWithBytes ? 4 + at<uint16_t>(place + 2) : 4;
      }
    });
  }

  void note(MachineCode& kernel, uint8_t what, const char* value) const {
    if (what == kRegisters && symbol(at<uint32_t>(value)) == kernel.name)
      kernel.registers = at<uint32_t>(value + 4);
    if (what == kRequiredThreads)
      kernel.threads = at<uint32_t>(value) * at<uint32_t>(value + 4) * at<uint32_t>(value + 8);
    if (what != kParameter) return;
    const size_t ordinal = at<uint16_t>(value + 4);
    const auto bits = at<uint32_t>(value + 8);
    if (kernel.parameters.size() <= ordinal) kernel.parameters.resize(ordinal + 1);
    kernel.parameters[ordinal] = {bits >> 18, (bits >> 8 & 0xf) != 0};
  }

  const char* file_;
  const Elf64_Ehdr head_;
};
}  // namespace

bool is_cubin(const void* image) {
  const auto* file = static_cast<const char*>(image);
  return std::memcmp(file, ELFMAG, SELFMAG) == 0 && at<Elf64_Ehdr>(file).e_machine == kMachine;
}

Cubin read_cubin(const void* image) { return Reader(static_cast<const char*>(image)).read(); }
}  // namespace fake_cuda
