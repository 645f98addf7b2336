#include "pager/eh_frame.h"

#include <errno.h>
#include <string.h>

#include "pager/eh.h"

#define ENTRY_BYTES 8192 /* of a CIE or FDE; what a longer one says behind that is not read */
#define ENTRIES_MAX 50000 /* that are looked at one after the other */
#define TABLE_ENTRY 8

/* DW_EH_PE_*: LSB 5.0 Core, 10.5. */
#define ABSOLUTE 0x00
#define UDATA2 0x02
#define UDATA4 0x03
#define UDATA8 0x04
#define SDATA2 0x0a
#define SDATA4 0x0b
#define SDATA8 0x0c
#define FORMAT 0x0f
#define PCREL 0x10
#define DATAREL 0x30
#define APPLICATION 0x70
#define INDIRECT 0x80

struct entry {
	uint64_t at, next; /* its length field; the entry behind it */
	uint64_t id_at;    /* its CIE pointer */
	uint32_t id;
	struct eh_bytes bytes; /* what follows that */
	uint8_t room[ENTRY_BYTES];
};

struct cie {
	struct eh_factors factors;
	uint8_t encoding; /* of the addresses in its FDEs */
	bool augmented, signal;
	struct eh_bytes program;
};

/* What is being read: an entry, and the CIE that was needed last. */
struct reader {
	const struct eh_memory *memory;
	struct entry entry, about;
	struct cie cie;
	uint64_t cie_at; /* 0: none was */
};

/* A number of the format; its bytes begin at `address` in the vessel. */
static uint64_t encoded(struct eh_bytes *bytes, uint8_t encoding, uint64_t address)
{
	uint64_t value = 0;

	switch (encoding & FORMAT) {
	case ABSOLUTE:
	case UDATA8:
	case SDATA8:
		value = eh_fixed(bytes, 8);
		break;
	case UDATA2:
		value = eh_fixed(bytes, 2);
		break;
	case SDATA2:
		value = (uint64_t)(int16_t)eh_fixed(bytes, 2);
		break;
	case UDATA4:
		value = eh_fixed(bytes, 4);
		break;
	case SDATA4:
		value = (uint64_t)(int32_t)eh_fixed(bytes, 4);
		break;
	default:
		bytes->bad = true;
	}
	if ((encoding & APPLICATION) == PCREL)
		value += address;
	else if (encoding & APPLICATION || encoding & INDIRECT)
		bytes->bad = true;
	return value;
}

/* -ENOENT: the end mark. */
static int read_entry(const struct eh_memory *memory, uint64_t at, struct entry *entry)
{
	uint32_t length;

	if (memory->read(memory->context, at, &length, sizeof(length)))
		return -EINVAL;
	if (!length)
		return -ENOENT;
	if (length == UINT32_MAX || length < sizeof(entry->id)) /* "extended length": no linker makes it */
		return -EINVAL;
	size_t take = length < ENTRY_BYTES ? length : ENTRY_BYTES;
	if (memory->read(memory->context, at + sizeof(length), entry->room, take))
		return -EINVAL;
	entry->at = at;
	entry->id_at = at + sizeof(length);
	entry->next = entry->id_at + length;
	memcpy(&entry->id, entry->room, sizeof(entry->id));
	entry->bytes = (struct eh_bytes){entry->room + sizeof(entry->id), entry->room + take, length > take, false};
	return 0;
}

static uint64_t where(const struct entry *entry, const struct eh_bytes *bytes)
{
	return entry->id_at + (uint64_t)(bytes->at - entry->room);
}

static int read_augmentation(struct entry *entry, struct cie *cie, const char *letters)
{
	struct eh_bytes *bytes = &entry->bytes;
	uint64_t length = eh_unsigned(bytes);

	if (bytes->bad || length > (uint64_t)(bytes->end - bytes->at))
		return -EINVAL;
	const uint8_t *behind = bytes->at + length;
	cie->augmented = true;
	for (; *letters; letters++) {
		switch (*letters) {
		case 'R':
			cie->encoding = (uint8_t)eh_fixed(bytes, 1);
			break;
		case 'L':
			eh_fixed(bytes, 1);
			break;
		case 'P': {
			uint8_t encoding = (uint8_t)eh_fixed(bytes, 1);
			encoded(bytes, encoding & FORMAT, 0);
			break;
		}
		case 'S':
			cie->signal = true;
			break;
		case 'B': /* AArch64 */
			break;
		default:
			return -EINVAL;
		}
	}
	if (bytes->bad || bytes->at > behind)
		return -EINVAL;
	bytes->at = behind;
	return 0;
}

static int read_cie(struct reader *reader, uint64_t at)
{
	char letters[8];
	struct entry *entry = &reader->about;
	struct cie *cie = &reader->cie;
	struct eh_bytes *bytes = &entry->bytes;

	if (reader->cie_at == at)
		return 0;
	reader->cie_at = 0;
	if (read_entry(reader->memory, at, entry) < 0 || entry->id)
		return -EINVAL;
	*cie = (struct cie){.encoding = ABSOLUTE};
	uint64_t version = eh_fixed(bytes, 1);
	size_t count = 0;
	while (count < sizeof(letters) && (letters[count] = (char)eh_fixed(bytes, 1)))
		count++;
	if (count == sizeof(letters) || (version != 1 && version != 3))
		return -EINVAL;
	cie->factors.code = eh_unsigned(bytes);
	cie->factors.data = eh_signed(bytes);
	uint64_t column = version == 1 ? eh_fixed(bytes, 1) : eh_unsigned(bytes);
	if (bytes->bad || column != EH_RETURN)
		return -EINVAL;
	if (letters[0] && (letters[0] != 'z' || read_augmentation(entry, cie, letters + 1) < 0))
		return -EINVAL;
	cie->program = *bytes;
	reader->cie_at = at;
	return 0;
}

/* Of the FDE that was read.  -ENOENT: it is of another function. */
static int read_row(struct reader *reader, uint64_t pc, struct eh_row *row)
{
	struct entry *fde = &reader->entry;
	const struct cie *cie = &reader->cie;
	struct eh_bytes *bytes = &fde->bytes;

	if (read_cie(reader, fde->id_at - fde->id) < 0)
		return -EINVAL;
	uint64_t start = encoded(bytes, cie->encoding, where(fde, bytes));
	uint64_t length = encoded(bytes, cie->encoding & FORMAT, 0);
	if (bytes->bad)
		return -EINVAL;
	if (pc - start >= length)
		return -ENOENT;
	if (cie->augmented) {
		uint64_t skip = eh_unsigned(bytes);
		if (bytes->bad || skip > (uint64_t)(bytes->end - bytes->at))
			return -EINVAL;
		bytes->at += skip;
	}
	*row = (struct eh_row){.start = start, .end = start + length, .signal = cie->signal};
	return eh_program(&cie->factors, cie->program, *bytes, pc, row);
}

int eh_frame_walk(const struct eh_memory *memory, uint64_t frames, uint64_t len, uint64_t pc, struct eh_row *row)
{
	struct reader reader;
	uint64_t at = frames;

	reader.memory = memory;
	reader.cie_at = 0;
	for (int i = 0; i < ENTRIES_MAX && at - frames < len; i++) {
		int rc = read_entry(memory, at, &reader.entry);
		if (rc < 0)
			return rc;
		if (reader.entry.id) {
			rc = read_row(&reader, pc, row);
			if (rc != -ENOENT)
				return rc;
		}
		at = reader.entry.next;
	}
	return -ENOENT;
}

/* The last entry of the sorted table that begins at or before `pc`: its FDE; 0: none does. */
static int search_table(const struct eh_memory *memory, uint64_t header, uint64_t table, uint64_t count,
			uint64_t pc, uint64_t *fde)
{
	uint64_t low = 0, high = count;
	int32_t pair[2];

	*fde = 0;
	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		if (memory->read(memory->context, table + middle * TABLE_ENTRY, pair, sizeof(pair)))
			return -EINVAL;
		if (header + (uint64_t)(int64_t)pair[0] <= pc) {
			*fde = header + (uint64_t)(int64_t)pair[1];
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return *fde ? 0 : -ENOENT;
}

int eh_frame_search(const struct eh_memory *memory, uint64_t header, uint64_t len, uint64_t pc, struct eh_row *row)
{
	uint8_t first[20];
	size_t take = len < sizeof(first) ? len : sizeof(first);
	struct reader reader;
	uint64_t fde;

	reader.memory = memory;
	reader.cie_at = 0;
	if (take < 4 || memory->read(memory->context, header, first, take) || first[0] != 1)
		return -EINVAL;
	struct eh_bytes bytes = {first + 4, first + take, false, false};
	encoded(&bytes, first[1], header + 4); /* .eh_frame, which the table makes needless */
	if (first[3] != (DATAREL | SDATA4)) /* no linker makes another */
		return -EINVAL;
	uint64_t count = encoded(&bytes, first[2], 0), offset = (uint64_t)(bytes.at - first);
	if (bytes.bad || count > (len - offset) / TABLE_ENTRY)
		return -EINVAL;
	int rc = search_table(memory, header, header + offset, count, pc, &fde);
	if (rc == 0)
		rc = read_entry(memory, fde, &reader.entry);
	if (rc < 0 || !reader.entry.id)
		return rc == -ENOENT ? rc : -EINVAL;
	return read_row(&reader, pc, row);
}
